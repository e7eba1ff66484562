"""Two sweeps against each other: python -m experiments.compare runs/a runs/b"""

from absl import flags

from experiments import cli
from experiments.reporting import facts
from fedvlr_jax.foreign import printable
from fedvlr_jax.report import compare_page, sections, shell
from fedvlr_jax.settings import FILE

USAGE = """
    usage: python -m experiments.compare RUN_A RUN_B [--out=FILE]

    Compares two folders that experiments.sweep or experiments.train has written: which settings
    differ, and what that changed in each combination, with 95 % intervals. Prints the comparison
    and writes it as one HTML page.
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define --out."""
    cli.define_path(into, "out", "runs/compare.html", "HTML file to write.", FILE)


def main(values: flags.FlagValues, first: str, second: str) -> None:
    """Compare, print and write."""
    out = values.out
    shell.check_place(out)
    comparison = compare_page.compared(*(compare_page.held(folder) for folder in (first, second)))
    print(printable("\n".join(compare_page.lines(comparison, first, second))))
    alone = "{} runs of A, {} of B".format(*map(len, comparison.alone))
    made = facts("compare", A=first, B=second, without_a_counterpart=alone)
    out.parent.mkdir(parents=True, exist_ok=True)
    shell.write(out, sections.page("Comparison", made, compare_page.sections(comparison)))
    print(printable(f"written to {out}"))


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE, ("RUN_A", "RUN_B"))
