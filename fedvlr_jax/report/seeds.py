"""Results over seeds: what goes along x, a row per combination, means with intervals, series.

Here and in the pages of sweeps `table` has a row per run, and `axes` is what was swept.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax.analysis.metrics import cutoffs_of, selection_cutoff
from fedvlr_jax.analysis.statistics import Interval, bounds, interval
from fedvlr_jax.report.chart import Axis, Numbers, Series, side_by_side
from fedvlr_jax.runs.declare import Axes
from fedvlr_jax.runs.ledger import FINISHED

_APART = 0.07  # of neighbouring series over names, so that their intervals show


def cutoff(table: pd.DataFrame) -> int:
    """K of the metrics that are shown of runs.

    50 where all that have finished have it, else the largest K that they share; where they share
    none, of all that there are.
    """
    finished = table[table["status"] == FINISHED]
    names = {f"test/warm/ndcg@{k}": k for k in cutoffs_of(table) if f"test/warm/ndcg@{k}" in table}
    shared = [k for name, k in names.items() if finished[name].notna().all()]
    return selection_cutoff(shared or names.values())


def varied(axes: Axes) -> list[str]:
    """The settings other than the seed in which runs differ."""
    return [name for name, values in axes.items() if name != "seed" and len(values) > 1]


def along(axes: Axes) -> str | None:
    """The setting that every chart has from left to right: clients, or the first of numbers.

    None where no number is varied.
    """
    numbers = [n for n in varied(axes) if all(isinstance(v, Real) for v in axes[n])]
    return "clients" if "clients" in numbers else next(iter(numbers), None)


def axis_of(name: str, values: Numbers, by_factors: bool = False) -> Axis:
    """The axis of a setting's numbers: logarithmic where a line would not show their distances."""
    log = min(values) > 0 and (by_factors or max(values) >= 10 * min(values))
    shown = {"clients": "number of clients", "items": "number of items"}.get(name, name)
    return Axis(shown, log=log, marks=tuple(values))


def in_order(table: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """The runs of a table in the order of the values that are swept."""
    names = varied(axes)
    places = [[axes[name].index(value) for value in table[name]] for name in names]
    return table.iloc[np.lexsort(places[::-1])] if names else table


def grouped(
    table: pd.DataFrame, names: Sequence[str]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows that are equal in the columns `names`, with what they are equal in."""
    groups = table.groupby(list(names), sort=False, dropna=False) if names else [((), table)]
    for values, group in groups:
        yield dict(zip(names, values, strict=True)), group


def label(row: Mapping[str, Any] | pd.Series, names: Sequence[str]) -> str:
    """What a combination is called where the names of its settings are known."""
    return ", ".join(_short(row[name]) for name in names)


def _short(value: Any) -> str:
    """A value without needless digits, with all that it needs."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def labels(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """What the combinations of a table are called."""
    return [label(row, names) or "all runs" for _, row in table.iterrows()]


def with_ends(name: str, mean: Any, ends: Interval | None) -> dict[str, Any]:
    """The columns of a mean and of the ends of its interval, None where it has none."""
    low, high = ends or (None, None)
    return {name: mean, f"{name} low": low, f"{name} high": high}


def mean_of(name: str, values: Sequence[float | int | None], limits: Interval) -> dict[str, Any]:
    """The columns of the mean of some values and of its `interval`; None where one is missing.

    A count stays a whole number where all are the same.
    """
    if not len(values) or pd.isna(values).any():
        return with_ends(name, None, None)
    ends = interval(values, *limits)
    return with_ends(name, values[0] if ends is None else float(np.mean(values)), ends)


def combined(table: pd.DataFrame, axes: Axes, columns: Mapping[str, str]) -> pd.DataFrame:
    """A row per combination of what is varied, in the order of the table, over its finished runs.

    Args:
        columns: of the table, and the names that they get.

    Returns:
        What is varied; `runs`, how many; for every column its mean, and `<name> low` and
        `<name> high`, the ends of its `interval` over the runs; None for all three where runs lack
        a value.
    """
    rows = []
    for values, group in grouped(table[table["status"] == FINISHED], varied(axes)):
        row = values | {"runs": len(group)}
        for column, name in columns.items():
            values = group[column].tolist() if column in group else []
            row |= mean_of(name, values, bounds(column))
        rows.append(row)
    return pd.DataFrame(rows)


def series(
    table: pd.DataFrame,
    column: str,
    x: str,
    by: Sequence[str] = (),
    places: Sequence[Any] | None = None,
    styles: Mapping[str, int] | None = None,
    gap: float = _APART,
    name: str = "{}",
    **look: Any,
) -> list[Series]:
    """Means with their intervals, a series for every combination of some columns.

    Rows without a mean are left out; the interval of a single run ends at the run itself.

    Args:
        table: as of `combined`.
        column: what is drawn.
        x: the column along x.
        by: the columns that tell series apart.
        places: values of `x` that stand at 0, 1, ... of an axis with labels, series side by side;
            None for numbers.
        styles: of the series by their `label`, from left to right; by default in order.
        gap: between neighbours.
        name: of a series, with {} for its label.
        **look: of all series.
    """
    combinations = {label(values, by): rows for values, rows in grouped(table, by)}
    styles = styles or {which: number for number, which in enumerate(combinations)}
    drawn = []
    for number, (which, style) in enumerate(styles.items()):
        rows = combinations.get(which, table.iloc[:0])
        rows = rows[rows[column].notna()]
        if rows.empty:
            continue
        if places is None:
            rows = rows.sort_values(x, kind="stable")
            at = rows[x].tolist()
        else:
            shift = side_by_side(number, len(styles), gap)
            at = [places.index(value) + shift for value in rows[x]]
        legend = name.format(which).strip()
        drawn.append(_with_interval(legend, at, rows, column, style, **look))
    return drawn


def curves(
    table: pd.DataFrame, column: str, by: Sequence[str], styles: Mapping[str, int] | None = None
) -> list[Series]:
    """Bands over the rounds of runs that differ in their seed, as far as all of them have gone.

    A mean over fewer would jump.

    Args:
        table: a row per run and round: what `by` names, `seed`, `round` and the column.
        column: that is drawn.
        by: the columns that tell series apart.
        styles: of the series by their `label`; by default in order.
    """
    drawn = []
    for position, (values, runs) in enumerate(grouped(table, by)):
        n_seeds, which = runs["seed"].nunique(), label(values, by)
        means = [
            {"round": number} | mean_of("mean", known, bounds(column))
            for number, measured in runs.groupby("round")[column]
            if len(known := pd.to_numeric(measured).dropna().tolist()) == n_seeds
        ]
        rows = pd.DataFrame(means, columns=["round", "mean", "mean low", "mean high"])
        style, rounds = position if styles is None else styles[which], rows["round"].tolist()
        drawn.append(_with_interval(which or "all runs", rounds, rows, "mean", style, kind="band"))
    return drawn


def _with_interval(
    name: str, x: Numbers, rows: pd.DataFrame, column: str, style: int, **look: Any
) -> Series:
    """Means of a column; where there is no interval, it ends at the mean itself."""
    means = rows[column].astype(float)
    low, high = (
        rows[f"{column} {end}"].astype(float).fillna(means).tolist() for end in ("low", "high")
    )
    return Series(name, x, means.tolist(), (low, high), style, **look)
