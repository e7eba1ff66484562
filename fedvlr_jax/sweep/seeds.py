"""A sweep's results over seeds: a row per combination, means with intervals, slopes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from fedvlr_jax.sweep.declare import Axes
from fedvlr_jax.sweep.store import FINISHED

_CONFIDENCE = 0.95


def varied(axes: Axes) -> list[str]:
    """The settings other than the seed in which a sweep's runs differ."""
    return [name for name, values in axes.items() if name != "seed" and len(values) > 1]


def along(axes: Axes) -> str | None:
    """The setting that is drawn from left to right: clients, or the first of numbers."""
    numbers = [name for name in varied(axes) if not isinstance(axes[name][0], str)]
    return "clients" if "clients" in numbers else next(iter(numbers), None)


def bounds(column: str) -> tuple[float, float]:
    """What a column of results can be at least and at most."""
    if column == "train_loss":  # a backbone's penalty may take it below 0
        return -np.inf, np.inf
    if "/ndcg@" in column or "/hr@" in column:
        return 0.0, 100.0
    if column.startswith(("reliance/", "router/")) or column.endswith("_share"):
        return 0.0, 1.0
    return 0.0, np.inf


def interval(
    values: Sequence[float | int], least: float = -np.inf, most: float = np.inf
) -> tuple[float, float] | None:
    """The 95 % interval of the mean, Student's t, within what the quantity can be.

    Two numbers say next to nothing of their spread (the interval would be 9 times as wide as they
    are apart), so of two it is their range. None for less than two, and where all are the same.
    """
    if len(values) < 2 or min(values) == max(values):
        return None
    if len(values) == 2:
        return float(min(values)), float(max(values))
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * spread
    mean = np.mean(values)
    return float(max(mean - half, least)), float(min(mean + half, most))


def combined(table: pd.DataFrame, axes: Axes, columns: dict[str, str]) -> pd.DataFrame:
    """A row per combination of what is varied, in the order of the axes, over its finished runs.

    Args:
        table: of `tables.results`.
        axes: what was swept.
        columns: of the table, and the names that they get.

    Returns:
        What is varied; `runs`, how many; for every column its mean, and `<name> low` and
        `<name> high`, the ends of its `interval` over the runs; None for all three where runs lack
        a value.
    """
    return by(table, varied(axes), columns)


def by(table: pd.DataFrame, names: Sequence[str], columns: dict[str, str]) -> pd.DataFrame:
    """As `combined`, a row for every combination of values in the columns `names`."""
    finished = table[table["status"] == FINISHED]
    groups = finished.groupby(list(names), sort=False, dropna=False) if names else [((), finished)]
    rows = []
    for values, group in groups:
        row = dict(zip(names, values, strict=True)) | {"runs": len(group)}
        for column, name in columns.items():
            found = group[column] if column in group else pd.Series([None] * len(group))
            mean, low, high = None, None, None
            if not found.isna().any():
                numbers = found.tolist()
                low, high = interval(numbers, *bounds(column)) or (None, None)
                # A count stays a whole number where all are the same.
                mean = numbers[0] if low is None else float(np.mean(numbers))
            row |= {name: mean, f"{name} low": low, f"{name} high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def drawn(table: pd.DataFrame, name: str, x: str) -> tuple[list, list, tuple[list, list]]:
    """Numbers of a line through the rows of `combined`: x, means, and the ends of their intervals.

    Rows without a mean are left out; the interval of a single run ends at the run itself.
    """
    rows = table[table[name].notna()]
    means = rows[name].astype(float)
    ends = (rows[f"{name} {end}"].astype(float).fillna(means).tolist() for end in ("low", "high"))
    return rows[x].tolist(), means.tolist(), (*ends,)


def in_order(table: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """The runs of a table in the order of the values that are swept."""
    names = varied(axes)
    places = [[axes[name].index(value) for value in table[name]] for name in names]
    return table.iloc[np.lexsort(places[::-1])] if names else table


def label(row: pd.Series, names: Sequence[str]) -> str:
    """What a combination is called where the names of its settings are known."""
    return ", ".join(
        f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names
    )


def slope(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> tuple[float, float, float] | None:
    """The power of x that y grows with: least squares on logarithms.

    Returns:
        The power; half of its 95 % interval (Student's t), NaN for two points; and the logarithm of
        y at x = 1. None where there are less than two different x, or a number is not above 0.
    """
    if len(np.unique(x)) < 2 or (x <= 0).any() or (y <= 0).any():
        return None
    found = stats.linregress(np.log(x), np.log(y))
    freedom = len(x) - 2
    error = found.stderr if np.ptp(y) else 0.0  # of a constant scipy's is NaN
    width = stats.t.ppf((1 + _CONFIDENCE) / 2, freedom) * error if freedom else np.nan
    return float(found.slope), float(width), float(found.intercept)
