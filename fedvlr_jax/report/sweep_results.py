"""A sweep's results: a row per run, and what there is to know of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedvlr_jax import record, targets
from fedvlr_jax.config import Config
from fedvlr_jax.report import tabulate
from fedvlr_jax.report.seeds import cutoff, in_order
from fedvlr_jax.runs.declare import Axes
from fedvlr_jax.runs.ledger import FINISHED, Row
from fedvlr_jax.simulation.traced import program_of

# Columns of the printed table, with the heads they get there.
_SHOWN = {
    "best_round": "best round",
    "test/warm/hr@{k}": "warm HR@{k} %",
    "test/warm/ndcg@{k}": "warm NDCG@{k} %",
    "popularity/test/warm/ndcg@{k}": "popularity's %",
    "timing/round_seconds_median": "round s",
    "timing/client_rounds_per_second": "updates/s",
    "memory/peak_rss_gb": "peak GB",
    "to_target/round": "rounds to target",
}
# Columns of results.csv that another machine, or another day, would fill differently.
MEASURED = ("timing/", "memory/")
COMPILATION, MEMORY = "timing/program_compile_seconds", "memory/program_peak_rss_bytes"
_COMPILED = {"timing/compile_seconds": COMPILATION, "memory/peak_rss_bytes": MEMORY}


def results(rows: Mapping[str, Row]) -> pd.DataFrame:
    """A row per run: its name and status, its settings, and its summary, nested names joined by /.

    Rows are sorted by name. What has failed has a `reason` and no summary.
    """
    lines = []
    for run in sorted(rows):
        flat = {"run": run, "status": rows[run].status, "reason": None}
        flat |= rows[run].settings | flattened(rows[run].content)
        if "data/clients" in flat:
            flat["clients"] = flat["data/clients"]
        lines.append(flat)
    return pd.DataFrame(lines)


def to_targets(table: pd.DataFrame, configs: Mapping[str, Config], out: Path) -> pd.DataFrame:
    """With what finished runs took to their `--target`, in columns `to_target/...` (targets.py).

    A share is one of the best value of all finished runs with that target.

    Args:
        table: of `results`.
        configs: of the runs by name.
        out: the sweep's folder, below which they are.
    """
    by_target: dict[targets.Target, list[str]] = {}
    for run in table.loc[table["status"] == FINISHED, "run"]:
        target = targets.parsed(configs[run].schedule.target)
        if target is not None:
            by_target.setdefault(target, []).append(run)
    found: dict[str, dict[str, Any]] = {}
    for target, runs in by_target.items():
        found |= target.costs_of(
            {run: record.evaluations(out / record.RUNS_FOLDER / run) for run in runs}
        )
    if not found:
        return table
    columns = pd.DataFrame.from_dict(found, orient="index").add_prefix("to_target/")
    known = [name for name in columns if name in table]
    return table.drop(columns=[*known, "to_target"], errors="ignore").join(columns, on="run")


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one level, keys joined by '/'."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def of_programs(table: pd.DataFrame, configs: Mapping[str, Config]) -> pd.DataFrame:
    """With time and memory of compilation in all runs that share a program, not in one of them."""
    programs = [hash(program_of(configs[run])) for run in table["run"]]
    for own, shared in _COMPILED.items():
        if own in table:
            most = table[own].astype(float).groupby(programs).transform("max")
            table = table.assign(**{shared: most})
    return table


def remarks(table: pd.DataFrame) -> list[str]:
    """What a person should know of a sweep's numbers, as sentences.

    Args:
        table: of `results`.
    """
    finished = table[table["status"] == FINISHED]
    # Runs of versions that did not count have neither column.
    columns = finished.reindex(columns=["participation/trained", "best_is_last"])
    without_clients = columns["participation/trained"] == 0
    untrained = int(without_clients.sum())
    last = int((columns["best_is_last"].eq(True) & ~without_clients).sum())
    count, sentences = len(finished), []
    if last:
        sentences.append(
            f"in {last} of {count} runs the best round is the last one: a larger --rounds may do "
            "better"
        )
    if untrained:
        sentences.append(
            f"in {untrained} of {count} runs no client trained (--dropout): nothing was learned"
        )
    return sentences


def machines(table: pd.DataFrame) -> str:
    """What finished runs were trained on, like `8 x NVIDIA H100 (gpu, jax 0.12.0)`.

    Args:
        table: of `results`; what runs of older versions did not record is `unknown`.
    """
    finished = table[table["status"] == FINISHED]
    columns = ["devices", "jax/device_kind", "jax/platform", "jax/version"]
    known = finished.reindex(columns=columns).astype(object)
    rows = known.where(known.notna(), "unknown").drop_duplicates().itertuples(index=False)
    return "; ".join(f"{count} x {kind} ({where}, jax {jax})" for count, kind, where, jax in rows)


def shown(table: pd.DataFrame, axes: Axes) -> str:
    """The table for a terminal: what runs differ in, and what they came to."""
    table = in_order(table, axes)
    table = table.assign(**{"memory/peak_rss_gb": table.get("memory/peak_rss_bytes", 0) / 1e9})
    k = cutoff(table)
    heads = {column.format(k=k): head.format(k=k) for column, head in _SHOWN.items()}
    columns = [*axes, *(c for c in heads if c in table)]
    return tabulate.as_text(table[columns].rename(columns=heads))
