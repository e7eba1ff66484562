"""Two sweeps against each other: python -m experiments.compare runs/a runs/b"""

from dataclasses import dataclass

from absl import flags

from experiments import cli
from experiments.reporting import facts
from fedvlr_jax import targets
from fedvlr_jax.config import leaves
from fedvlr_jax.foreign import printable
from fedvlr_jax.report import compare_page, sections, shell
from fedvlr_jax.settings import FILE, checked, setting

USAGE = """
    usage: python -m experiments.compare RUN_A RUN_B [--target=METRIC:VALUE] [--out=FILE]

    Compares two folders that experiments.sweep or experiments.train has written: which settings
    differ, and what that changed in each combination, with 95 % intervals. Prints the comparison
    and writes it as one HTML page.
"""


@dataclass(frozen=True)
class _Own:
    target: str = setting(
        "",
        "Validation accuracy whose cost is compared: METRIC:VALUE, like valid/warm/ndcg@50:12.5, "
        "or a share of the best value of all runs, like valid/warm/ndcg@50:0.9max.",
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define --out and --target."""
    cli.define(into, _Own)
    cli.define_path(into, "out", "runs/compare.html", "HTML file to write.", FILE)


def main(values: flags.FlagValues, first: str, second: str) -> None:
    """Compare, print and write."""
    out = values.out
    shell.check_place(out)
    sides = (compare_page.held(folder) for folder in (first, second))
    target = targets.parsed(checked(leaves()["target"], values.target))
    comparison = compare_page.compared(*sides, target)
    print(printable("\n".join(compare_page.lines(comparison, first, second))))
    alone = "{} runs of A, {} of B".format(*map(len, comparison.alone))
    made = facts("compare", A=first, B=second, without_a_counterpart=alone)
    out.parent.mkdir(parents=True, exist_ok=True)
    shell.write(out, sections.page("Comparison", made, compare_page.sections(comparison)))
    print(printable(f"written to {out}"))


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE, ("RUN_A", "RUN_B"))
