"""Train one federation: python -m experiments.train --data=data/KU --out=runs/ku"""

from absl import flags

import fedvlr_jax
from experiments import cli, interrupts
from experiments.reporting import Progress, Quiet
from fedvlr_jax.config import leaves
from fedvlr_jax.events import WithEvents
from fedvlr_jax.foreign import printable
from fedvlr_jax.processes import start, together
from fedvlr_jax.settings import AT_LEAST_ONE, AT_LEAST_ZERO
from fedvlr_jax.simulation.results import remarks
from fedvlr_jax.simulation.run import default_out

USAGE = """
    usage: python -m experiments.train [--data=DIR] [--variant=fedvlr|mlp|vbpr|id] [--out=DIR] ...

    Trains a federation of recommenders and writes config.json, metrics.jsonl, summary.json,
    rankings.npz, per_user.npz, checkpoints/ and events/ (for TensorBoard) into --out. Run the same
    command again to go on after an interruption; Ctrl-C stops after the round. Give a larger
    --rounds to go on after the end.

    Several processes, on one host or many, can train together. Give each the same command with
    --coordinator, --num_processes and --process_id; srun needs none of these (docs/scaling.md).
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and --out."""
    cli.define_settings(into, leaves())
    cli.define_path(
        into,
        "out",
        None,
        "Folder of the run. The default is a folder below runs/ that is named after the settings.",
    )
    cli.define_quiet(into)
    cli.define_compilation_cache(into)
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT at which process 0 listens when several processes train together. An "
        "IPv6 address stands in brackets. If the processes do not share a home folder, set "
        "FEDVLR_SECRET to the same secret in all of them.",
        flag_values=into,
    )
    cli.define_number(
        into, "num_processes", None, "Number of processes that train together.", AT_LEAST_ONE
    )
    cli.define_number(
        into,
        "process_id",
        None,
        "Number of this process among them, counted from 0.",
        AT_LEAST_ZERO,
    )


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Train with the flags' settings and print the result."""
    config = fedvlr_jax.Config.of(**cli.given_settings(values, leaves()))
    start.join_if_told(values.coordinator, values.num_processes, values.process_id)
    if together.count() > 1:
        interrupts.defer()  # one that stops at once ends all of them
    out = default_out(config) if values.out is None else values.out
    reporter = WithEvents(Quiet() if values.quiet else Progress(), out)
    result = fedvlr_jax.train(config, out, reporter)
    if together.is_first():
        _show(result)


def _show(result: fedvlr_jax.Result) -> None:
    summary = result.summary
    done = summary["rounds_done"]
    print(f"best round {summary['best_round']} of {done} (by validation), test in percent:")
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
    for remark in remarks(summary):
        print(remark)
    rate = summary["timing"]["client_rounds_per_second"]
    speed = "" if rate is None else f"; {rate:,.0f} client updates a second"
    print(printable(f"written to {result.out}{speed}"))
    command = cli.command("experiments.recommend", f"--run={result.out}", "--user=0")
    print(f"look at a user: {command}")


def _group(metrics: dict[str, float | None], prefix: str) -> dict[str, float | None]:
    """The metrics of one group of clients, without its prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
