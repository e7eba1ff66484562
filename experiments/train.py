"""Train one federation: python -m experiments.train --data=data/KU --out=runs/ku"""

from dataclasses import dataclass
from pathlib import Path

from absl import flags

import fedvlr_jax
from experiments import cli, interrupts
from experiments.reporting import Progress, Quiet
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import leaves
from fedvlr_jax.events import WithEvents
from fedvlr_jax.foreign import printable
from fedvlr_jax.processes import start, together
from fedvlr_jax.settings import AT_LEAST_ONE, AT_LEAST_ZERO, FOLDER, setting
from fedvlr_jax.simulation.results import remarks
from fedvlr_jax.simulation.run import default_out
from fedvlr_jax.trackers.tracked import Tracked

USAGE = """
    usage: python -m experiments.train [--data=DIR] [--variant=fedvlr|mlp|vbpr|id] [--out=DIR] ...

    Trains a federation of recommenders and writes config.json, metrics.jsonl, summary.json,
    rankings.npz, per_user.npz, checkpoints/ and events/ (for TensorBoard) into --out. Run the same
    command again to go on after an interruption; Ctrl-C stops after the round. Give a larger
    --rounds to go on after the end.

    Several processes, on one host or many, can train together. Give each the same command with
    --coordinator, --num_processes and --process_id; srun needs none of these (docs/scaling.md).
"""


@dataclass(frozen=True)
class _Own:
    out: Path | None = setting(
        None,
        "Folder of the run. The default is a folder below runs/ that is named after the settings.",
        FOLDER,
    )


@dataclass(frozen=True)
class _Processes:
    coordinator: str | None = setting(
        None,
        "HOST:PORT at which process 0 listens when several processes train together. An "
        "IPv6 address stands in brackets. If the processes do not share a home folder, set "
        "FEDVLR_SECRET to the same secret in all of them.",
    )
    num_processes: int | None = setting(
        None, "Number of processes that train together.", AT_LEAST_ONE
    )
    process_id: int | None = setting(
        None, "Number of this process among them, counted from 0.", AT_LEAST_ZERO
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and those of the program."""
    cli.define_settings(into, leaves())
    cli.define(into, _Own, cli.Tracking, cli.Quiet, cli.Compiling, _Processes)


def main(values: flags.FlagValues) -> None:
    """Train with the flags' settings and print the result."""
    config = fedvlr_jax.Config.of(**cli.given_settings(values, leaves()))
    start.join_if_told(values.coordinator, values.num_processes, values.process_id)
    if together.count() > 1:
        interrupts.defer()  # one that stops at once ends all of them
    out = default_out(config) if values.out is None else values.out
    reporter = WithEvents(Quiet() if values.quiet else Progress(), out)
    reporter = Tracked(reporter, out, cli.trackers(values))
    try:
        result = fedvlr_jax.train(config, out, reporter)
        if together.is_first():
            reporter.finish(result.summary)
    finally:
        reporter.close()
    if together.is_first():
        _show(result)


def _show(result: fedvlr_jax.Result) -> None:
    summary = result.summary
    done = summary["rounds_done"]
    print(f"best round {summary['best_round']} of {done} (by validation), test in percent:")
    for group, measured, prefix in (
        ("all", summary["test"], ""),
        ("warm", summary["test"], "warm/"),
        ("cold", summary["test"], "cold/"),
        ("popularity, warm", summary["popularity"]["test"], "warm/"),
    ):
        numbers = "  ".join(
            f"{name} {'--' if (v := measured[prefix + name]) is None else f'{v:.2f}'}"
            for name in metrics.told(summary["test"])
        )
        print(f"  {group:<16} {numbers}")
    for remark in remarks(summary):
        print(remark)
    rate = summary["timing"]["client_rounds_per_second"]
    speed = "" if rate is None else f"; {rate:,.0f} client updates a second"
    print(printable(f"written to {result.out}{speed}"))
    command = cli.command("experiments.recommend", f"--run={result.out}", "--user=0")
    print(f"look at a user: {command}")


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
