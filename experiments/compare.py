"""Two sweeps against each other: python -m experiments.compare runs/a runs/b"""

import shlex
import sys

import numpy as np
from absl import flags

from experiments import cli
from experiments.reporting import versions
from fedvlr_jax.foreign import printable
from fedvlr_jax.pages import sections, shell
from fedvlr_jax.pages.sections import Section
from fedvlr_jax.settings import FILE
from fedvlr_jax.sweep import compare
from fedvlr_jax.sweep.compare import Comparison

USAGE = """
    usage: python -m experiments.compare RUN_A RUN_B [--out=FILE]

    Compares two folders that experiments.sweep or experiments.train has written: which settings
    differ, and what that changed in each combination, with 95 % intervals. Prints the comparison
    and writes it as one HTML page.
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define --out."""
    cli.define_path(into, "out", "runs/compare.html", "HTML file to write.", FILE)


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues, first: str, second: str) -> None:
    """Compare, print and write."""
    out = values.out
    shell.check_place(out)
    found = compare.compared(*(compare.held(folder) for folder in (first, second)))
    print(printable("\n".join(_lines(found, first, second))))
    drawn = compare.chart(found)
    parts = [
        Section(
            "What differs",
            "Settings that are one thing in all runs of A, and another in all of B.",
            found.settings,
        ),
        Section(
            "What it changed",
            "Test metrics over warm clients. B - A: the difference of the means over seeds, with "
            "its 95 % interval by Welch where both have three runs or more. Over users: the same "
            "difference paired over users, averaged over seeds, with a 95 % bootstrap interval and "
            "the p-value of a sign-flip permutation test, where both have the same population.",
            found.table,
            charts=() if drawn is None else (drawn,),
        ),
    ]
    facts = {
        "A": first,
        "B": second,
        "command": shlex.join(["python", "-m", "experiments.compare", *sys.argv[1:]]),
        "without a counterpart": f"{found.alone[0]} runs of A, {found.alone[1]} of B",
        "made with": versions(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    shell.write(out, sections.page("Comparison", facts, parts))
    print(printable(f"written to {out}"))


def _lines(found: Comparison, first: str, second: str) -> list[str]:
    """The comparison as text."""
    known = found.table.where(found.table.notna(), np.nan)  # pandas tells None as such
    table = known.to_string(index=False, float_format=lambda x: f"{x:,.4g}", na_rep="--")
    return [
        f"A: {first}",
        f"B: {second}",
        *(
            f"--{row['setting']}: {row['A']} in A, {row['B']} in B"
            for _, row in found.settings.iterrows()
        ),
        *(["no setting differs"] if found.settings.empty else []),
        table,
        *(
            f"{number} runs of {side} have no counterpart"
            for side, number in zip("AB", found.alone, strict=True)
            if number
        ),
    ]


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE, ("RUN_A", "RUN_B"))
