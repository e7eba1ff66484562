"""Results over seeds: what goes along x, a row per combination, means with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax.analysis.statistics import Interval, bounds, interval
from fedvlr_jax.report.chart import Axis, Numbers, Series, side_by_side
from fedvlr_jax.sweep.declare import Axes
from fedvlr_jax.sweep.store import FINISHED

_FEWEST_BARS = 3  # side by side, that they are as wide as


def varied(axes: Axes) -> list[str]:
    """The settings other than the seed in which runs differ."""
    return [name for name, values in axes.items() if name != "seed" and len(values) > 1]


def along(axes: Axes) -> str | None:
    """The setting that every chart has from left to right: clients, or the first of numbers.

    None where no number is varied.
    """
    numbers = [n for n in varied(axes) if all(isinstance(v, Real) for v in axes[n])]
    return "clients" if "clients" in numbers else next(iter(numbers), None)


def combined(table: pd.DataFrame, axes: Axes, columns: Mapping[str, str]) -> pd.DataFrame:
    """A row per combination of what is varied, in the order of the table, over its finished runs.

    Args:
        table: a row per run.
        axes: what was swept.
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
            found = group[column] if column in group else pd.Series([None] * len(group))
            mean, ends = None, (None, None)
            if not found.isna().any():
                mean, ends = over(found.tolist(), bounds(column))
            row |= {name: mean, f"{name} low": ends[0], f"{name} high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def over(
    values: Sequence[float | int], limits: Interval = (-np.inf, np.inf)
) -> tuple[float | int, Interval | tuple[None, None]]:
    """The mean, and the ends of its interval where it has one.

    A count stays a whole number where all are the same.
    """
    ends = interval(values, *limits) or (None, None)
    return (values[0] if ends[0] is None else float(np.mean(values))), ends


def grouped(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows that are equal in the columns `names`, with what they are equal in."""
    if not names:
        return [({}, table)]
    groups = table.groupby(list(names), sort=False, dropna=False)
    return [(dict(zip(names, values, strict=True)), group) for values, group in groups]


def line(table: pd.DataFrame, column: str, x: str, name: str, **look: Any) -> Series:
    """A line through the rows of `combined`.

    Rows without a mean are left out; the interval of a single run ends at the run itself.
    """
    rows = table[table[column].notna()].sort_values(x, kind="stable")
    means = rows[column].astype(float)
    low, high = (
        rows[f"{column} {end}"].astype(float).fillna(means).tolist() for end in ("low", "high")
    )
    return Series(name, rows[x].tolist(), means.tolist(), (low, high), **look)


def bars(
    table: pd.DataFrame,
    column: str,
    x: Sequence[Any],
    by: tuple[str, str],
    styles: Mapping[Any, int],
    name: str = "{}",
) -> list[Series]:
    """Bars side by side at every value of a column, one for every value of another one.

    Args:
        table: as of `combined`.
        column: what is drawn.
        x: the values of the first column of `by`, from left to right.
        by: the columns.
        styles: of the values of the second one, from left to right; `name` is what they are called.
    """
    width, found = 0.84 / max(len(styles), _FEWEST_BARS), []
    for number, (value, style) in enumerate(styles.items()):
        rows = table[table[by[1]] == value]
        shift = side_by_side(number, len(styles), width)
        places = rows[by[0]].map(lambda at: x.index(at)) + shift
        made = line(rows.assign(_place=places.astype(float)), column, "_place", name.format(value))
        found.append(dataclasses.replace(made, kind="bars", width=0.92 * width, style=style))
    return found


def over_rounds(runs: pd.DataFrame, column: str, name: str, **look: Any) -> Series:
    """A band over the rounds of runs that differ in their seed, as far as all of them have gone.

    A mean over fewer would jump.

    Args:
        runs: `seed`, `round` and the column.
        column: that is drawn.
        name: in the legend.
        **look: of the series.
    """
    by_round = runs.assign(y=pd.to_numeric(runs[column])).groupby("round")["y"]
    whole = by_round.count() == runs["seed"].nunique()
    found = {
        number: over(by_round.get_group(number).tolist(), bounds(column))
        for number in whole.index[whole]
    }
    means = [float(mean) for mean, _ in found.values()]
    ends = [(mean, mean) if end[0] is None else end for mean, end in found.values()]
    low, high = zip(*ends, strict=True) if ends else ((), ())
    return Series(name, list(found), means, (low, high), kind="band", **look)


def in_order(table: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """The runs of a table in the order of the values that are swept."""
    names = varied(axes)
    places = [[axes[name].index(value) for value in table[name]] for name in names]
    return table.iloc[np.lexsort(places[::-1])] if names else table


def label(row: Mapping[str, Any] | pd.Series, names: Sequence[str]) -> str:
    """What a combination is called where the names of its settings are known."""
    return ", ".join(
        f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names
    )


def labels(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """What the combinations of a table are called."""
    return [label(row, names) or "all runs" for _, row in table.iterrows()]


def axis_of(name: str, values: Numbers, by_factors: bool = False) -> Axis:
    """The axis of a setting's numbers: logarithmic where a line would not show their distances."""
    positive = min(values) > 0
    log = positive and (by_factors or max(values) >= 10 * min(values))
    shown = {"clients": "number of clients", "items": "number of items"}.get(name, name)
    return Axis(shown, log=log, marks=tuple(values))
