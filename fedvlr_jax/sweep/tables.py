"""A sweep's results as a table and as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import drawing
from fedvlr_jax.sweep import seeds
from fedvlr_jax.sweep.declare import Axes
from fedvlr_jax.sweep.store import FINISHED, Row

# Columns of the printed table, with the heads they get there.
_SHOWN = {
    "best_round": "best round",
    "test/warm/hr@50": "warm HR@50 %",
    "test/warm/ndcg@50": "warm NDCG@50 %",
    "popularity/test/warm/ndcg@50": "popularity's %",
    "timing/round_seconds_median": "round s",
    "timing/client_rounds_per_second": "updates/s",
    "memory/peak_rss_gb": "peak GB",
}
# Columns of results.csv that another machine, or another day, would fill differently.
MEASURED = ("timing/", "memory/")


def results(rows: Mapping[str, Row]) -> pd.DataFrame:
    """A row per run: its name and status, its settings, and its summary, nested names joined by /.

    Rows are sorted by name. What has failed has a `reason` and no summary.
    """
    found = []
    for run in sorted(rows):
        flat = {"run": run, "status": rows[run].status, "reason": None}
        flat |= rows[run].settings | flattened(rows[run].content)
        if "data/clients" in flat:
            flat["clients"] = flat["data/clients"]
        found.append(flat)
    return pd.DataFrame(found)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one level, keys joined by '/'."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def remarks(table: pd.DataFrame) -> list[str]:
    """What a person should know of a sweep's numbers, as sentences.

    Args:
        table: of `results`.
    """
    finished = table[table["status"] == FINISHED]
    # Runs of versions that did not count have neither column.
    told = finished.reindex(columns=["participation/trained", "best_is_last"])
    without_clients = told["participation/trained"] == 0
    untrained = int(without_clients.sum())
    last = int((told["best_is_last"].eq(True) & ~without_clients).sum())
    count, found = len(finished), []
    if last:
        found.append(
            f"in {last} of {count} runs the best round is the last one: a larger --rounds may do "
            "better"
        )
    if untrained:
        found.append(
            f"in {untrained} of {count} runs no client trained (--dropout): nothing was learned"
        )
    return found


def machines(table: pd.DataFrame) -> str:
    """What finished runs were trained on, like `8 x NVIDIA H100 (gpu, jax 0.12.0)`.

    Args:
        table: of `results`; what runs of older versions did not record is `unknown`.
    """
    finished = table[table["status"] == FINISHED]
    columns = ["devices", "jax/device_kind", "jax/platform", "jax/version"]
    told = finished.reindex(columns=columns).astype(object)
    rows = told.where(told.notna(), "unknown").drop_duplicates().itertuples(index=False)
    return "; ".join(f"{count} x {kind} ({where}, jax {jax})" for count, kind, where, jax in rows)


def shown(table: pd.DataFrame, axes: Axes) -> str:
    """The table for a terminal: what runs differ in, and what they came to."""
    table = table.assign(**{"memory/peak_rss_gb": table.get("memory/peak_rss_bytes", 0) / 1e9})
    columns = [*axes, *(c for c in _SHOWN if c in table)]
    names = table[columns].rename(columns=_SHOWN)
    return names.to_string(index=False, float_format=lambda x: f"{x:,.4g}", na_rep="--")


def plot(table: pd.DataFrame, axes: Axes, path: Path) -> None:
    """Draw round time, throughput, peak memory and accuracy over the first numbers that are swept.

    Those are the clients, unless something else is swept and they are not. A line for every
    combination of the others, mean and interval over seeds (`seeds.interval`).

    Args:
        table: of `results`; nothing is drawn of runs that have failed.
        axes: what was swept.
        path: of the PNG, in a folder that is there.
    """
    table = table[table["status"] == FINISHED]
    if table.empty:
        return
    x = _along(axes)
    hue = [name for name, values in axes.items() if name not in (x, "seed") and len(values) > 1]
    panels = (
        ("timing/round_seconds_median", "round time (s, median)", 1.0, True),
        ("timing/client_rounds_per_second", "client updates per second", 1.0, True),
        ("memory/peak_rss_bytes", "peak memory (GB)", 1e-9, False),
        ("test/warm/ndcg@50", "test NDCG@50, warm clients (%)", 1.0, False),
    )
    # Runs of a combination share a program, whose compilation is the peak of the first one.
    memory = table.groupby([x, *hue], sort=False)["memory/peak_rss_bytes"].transform("max")
    table = table.assign(**{"memory/peak_rss_bytes": memory})
    figure = drawing.empty(9.0, 6.5)
    drawn = figure.subplots(2, 2)
    groups = table.groupby(hue, sort=False) if hue else [((), table)]
    for number, (values, group) in enumerate(groups):
        label = ", ".join(str(value) for value in values) or str(table["variant"].iloc[0])
        for axis, (column, _, factor, _) in zip(drawn.flat, panels, strict=True):
            found = seeds.by(group, [x], {column: "y"})
            places, means, (lows, highs) = seeds.drawn(found.sort_values(x), "y", x)
            means, lows, highs = (factor * np.array(part) for part in (means, lows, highs))
            axis.errorbar(
                places,
                means,
                [means - lows, highs - means],
                label=label,
                capsize=3,
                **drawing.style(number),
            )
    for axis, (column, name, _, log) in zip(drawn.flat, panels, strict=True):
        axis.set_xlabel(x)
        axis.set_ylabel(name)
        if (table[x] > 0).all():
            axis.set_xscale("log")
        if log and (pd.to_numeric(table[column]) > 0).any():
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    popularity = table.groupby(x)["popularity/test/warm/ndcg@50"].mean()
    drawn.flat[-1].plot(popularity.index, popularity, "k--", marker=".", label="popularity")
    drawn.flat[-1].set_ylim(bottom=0)
    drawn.flat[-1].legend(fontsize="small")
    drawing.save(figure, path)


def _along(axes: Axes) -> str:
    """The setting that is drawn from left to right."""
    numbers = [
        name
        for name, values in axes.items()
        if name != "seed" and len(values) > 1 and not isinstance(values[0], str)
    ]
    return "clients" if "clients" in axes or not numbers else numbers[0]
