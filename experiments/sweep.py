"""Study scaling: python -m experiments.sweep --clients 100,1000,10000"""

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
from absl import flags

import fedvlr_jax
from experiments import cli, lists
from experiments.reporting import Progress
from fedvlr_jax import drawing, files
from fedvlr_jax.config import leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.names import VARIANTS

USAGE = """
    usage: python -m experiments.sweep [--clients=100,1000,10000] [--variants=fedvlr,mlp,id]
                                       [--seeds=N] [--rounds=N] [--out=DIR] ...

    Trains one federation for every combination of clients, variants and seeds, and writes
    results.csv (a row per run), scaling.png and every run's own folder into --out. Run the same
    command again to go on after an interruption.
"""

_SWEPT = ("clients", "variant", "seed")
_DEFAULT_ROUNDS = 30
_DEFAULT_CLIENTS = "100,1000,10000"


def define_flags(into: flags.FlagValues) -> None:
    """Define the sweep's flags: every setting that is not swept, and what to sweep over."""
    cli.define_settings(into, leaves(), without=_SWEPT)
    into.set_default("rounds", _DEFAULT_ROUNDS)
    flags.DEFINE_string(
        "clients",
        None,
        f"Numbers of clients to simulate, comma-separated; default {_DEFAULT_CLIENTS}. A folder "
        "given as --data brings its own.",
        flag_values=into,
    )
    flags.DEFINE_string(
        "variants",
        "fedvlr",
        f"Variants to train, comma-separated, from {', '.join(VARIANTS)}.",
        flag_values=into,
    )
    flags.DEFINE_integer("seeds", 1, "Seeds per combination, counted from 0.", flag_values=into)
    flags.DEFINE_string("out", "runs/sweep", "Folder of the sweep.", flag_values=into)


FLAGS = flags.FlagValues()
define_flags(FLAGS)

# Columns of the printed table, with the heads they get there.
_TABLE = {
    "clients": "clients",
    "variant": "variant",
    "seed": "seed",
    "best_round": "best round",
    "test/warm/hr@50": "warm HR@50 %",
    "test/warm/ndcg@50": "warm NDCG@50 %",
    "popularity/test/warm/ndcg@50": "popularity's %",
    "timing/round_seconds_median": "round s",
    "timing/client_rounds_per_second": "updates/s",
    "memory/peak_rss_gb": "peak GB",
}


def runs(values: flags.FlagValues) -> list[fedvlr_jax.Config]:
    """The configuration of every run, in the order they are trained, smallest first.

    Raises:
        UserError: an empty or malformed list, a repeated value, or a bad setting.
    """
    synthetic = values.data == "synthetic"
    if not synthetic and values.clients is not None:
        raise UserError(f"--clients={values.clients}: --data={values.data} brings its own clients")
    swept = _DEFAULT_CLIENTS if values.clients is None else values.clients
    clients = _numbers("clients", swept) if synthetic else [None]
    variants = lists.distinct("variants", values.variants, values.variants.split(","))
    seeds = lists.seeds(values.seeds)
    settings = {"rounds": _DEFAULT_ROUNDS} | cli.given_settings(values, leaves(), without=_SWEPT)
    return [
        fedvlr_jax.Config.of(**settings, clients=n, variant=variant, seed=seed)
        for n, variant, seed in itertools.product(sorted(clients), variants, seeds)
    ]


def main(values: flags.FlagValues) -> None:
    """Train every run and write the table and the picture after each."""
    configs = runs(values)
    out = Path(values.out)
    rows = []
    for number, config in enumerate(configs, start=1):
        name = run_name(config)
        print(f"[{number}/{len(configs)}] {name}", flush=True)
        result = fedvlr_jax.train(config, out / "runs" / name, Progress(config.method.variant))
        rows.append(row(config, result.summary))
        table = pd.DataFrame(rows)
        files.write_table(out / "results.csv", table)
        plot(table, out / "scaling.png")
    shown = table.assign(**{"memory/peak_rss_gb": table["memory/peak_rss_bytes"] / 1e9})
    shown = shown[list(_TABLE)].rename(columns=_TABLE)
    print(shown.to_string(index=False, float_format=lambda x: f"{x:,.3f}", na_rep="--"))
    print(f"written to {out}: results.csv, scaling.png, runs/")


def run_name(config: fedvlr_jax.Config) -> str:
    """The name of a run's folder, unique within a sweep."""
    clients = config.data.clients
    size = f"clients{clients}-" if clients is not None else ""
    return f"{size}{config.method.variant}-seed{config.schedule.seed}"


def row(config: fedvlr_jax.Config, summary: dict[str, Any]) -> dict[str, Any]:
    """One row of results.csv: the run's settings, then its summary with nested names joined."""
    flat = {**config.flat(), **flattened(summary)}
    flat["clients"] = summary["data"]["clients"]
    return flat


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one level, keys joined by '/'."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw round time, throughput, peak memory and accuracy against the number of clients."""
    panels = (
        ("timing/round_seconds_median", "round time (s, median)", 1.0, True),
        ("timing/client_rounds_per_second", "client updates per second", 1.0, True),
        ("memory/peak_rss_bytes", "peak memory (GB)", 1e-9, False),
        ("test/warm/ndcg@50", "test NDCG@50, warm clients (%)", 1.0, False),
    )
    figure = drawing.empty(9, 6.5)
    axes = figure.subplots(2, 2)
    for axis, (column, label, factor, log) in zip(axes.flat, panels, strict=True):
        for variant, group in table.groupby("variant", sort=False):
            values = group.groupby("clients")[column].agg(["mean", "std"]) * factor
            axis.errorbar(
                values.index, values["mean"], values["std"].fillna(0), marker="o", label=variant
            )
        axis.set_xlabel("clients")
        axis.set_ylabel(label)
        axis.set_xscale("log")
        if log:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    popularity = table.groupby("clients")["popularity/test/warm/ndcg@50"].mean()
    axes.flat[-1].plot(popularity.index, popularity, "k--", marker=".", label="popularity")
    axes.flat[-1].set_ylim(bottom=0)
    axes.flat[0].legend()
    axes.flat[-1].legend()
    drawing.save(figure, path)


def _numbers(name: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--{name}={text}: expected whole numbers, comma-separated, like 100,1000"
        ) from None
    return lists.distinct(name, text, numbers)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
