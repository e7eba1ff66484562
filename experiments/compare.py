"""Two sweeps against each other: python -m experiments.compare runs/a runs/b"""

import shlex
import sys
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.reporting import versions
from fedvlr_jax import files
from fedvlr_jax.errors import UserError
from fedvlr_jax.pages import sections
from fedvlr_jax.pages.sections import Section
from fedvlr_jax.sweep import compare

USAGE = """
    usage: python -m experiments.compare RUN_A RUN_B [--out=FILE]

    Compares two folders of experiments.sweep, or of experiments.train: what differs in settings,
    and what that changed, combination by combination, with 95 % intervals; prints it and writes it
    as one HTML page.
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define --out."""
    flags.DEFINE_string("out", "runs/compare.html", "The page.", flag_values=into)


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues, first: str, second: str) -> None:
    """Compare, print and write."""
    found = compare.compared(*(compare.held(Path(folder)) for folder in (first, second)))
    out = Path(values.out)
    if out.is_dir():
        raise UserError(f"--out={out}: is a folder, expected a file")
    print(f"A: {first}\nB: {second}")
    for _, row in found.settings.iterrows():
        print(f"--{row['setting']}: {row['A']} in A, {row['B']} in B")
    if found.settings.empty:
        print("no setting differs")
    print(found.table.to_string(index=False, float_format=lambda x: f"{x:,.4g}", na_rep="--"))
    for side, number in zip("AB", found.alone, strict=True):
        if number:
            print(f"{number} runs of {side} have no counterpart")
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
            "its 95 % interval by Welch. Over users: the same difference paired over users, "
            "averaged over seeds, with a 95 % bootstrap interval and the p-value of a sign-flip "
            "permutation test, where both have the same population.",
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
    files.write_text(out, sections.page("Comparison", facts, parts))
    print(f"written to {out}")


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE, ("RUN_A", "RUN_B"))
