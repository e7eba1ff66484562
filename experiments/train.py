"""Train one federation: python -m experiments.train --data=data/KU --out=runs/ku"""

from absl import flags

import fedvlr_jax
from experiments import cli
from experiments.reporting import Progress
from fedvlr_jax.config import leaves

USAGE = """
    usage: python -m experiments.train [--data=DIR] [--variant=fedvlr|mlp|id] [--out=DIR] ...

    Trains a federation of recommenders and writes config.json, metrics.jsonl, summary.json,
    rankings.npz, per_user.npz and checkpoints/ into --out. Run the same command again to go on
    after an interruption; give a larger --rounds to go on after the end.
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and --out."""
    cli.define_settings(into, leaves())
    flags.DEFINE_string(
        "out",
        None,
        "Folder of the run; by default one below runs/ that is named after the settings.",
        flag_values=into,
    )


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Train with the flags' settings and print the result."""
    config = fedvlr_jax.Config.of(**cli.given_settings(values, leaves()))
    result = fedvlr_jax.train(config, values.out, Progress())
    summary = result.summary
    print(f"best round {summary['best_round']} (by validation), test in percent:")
    for group, metrics in (
        ("all", summary["test"]),
        ("warm", _group(summary["test"], "warm/")),
        ("cold", _group(summary["test"], "cold/")),
        ("popularity, warm", _group(summary["popularity"]["test"], "warm/")),
    ):
        numbers = "  ".join(
            f"{name} {'--' if (v := metrics[name]) is None else f'{v:.2f}'}"
            for name in ("hr@10", "hr@50", "ndcg@10", "ndcg@50")
        )
        print(f"  {group:<16} {numbers}")
    rate = summary["timing"]["client_rounds_per_second"]
    speed = "" if rate is None else f"; {rate:,.0f} client updates a second"
    print(f"written to {result.out}{speed}")
    print(f"look at a user: python -m experiments.recommend --run={result.out} --user=0")


def _group(metrics: dict[str, float | None], prefix: str) -> dict[str, float | None]:
    """The metrics of one group of clients, without its prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
