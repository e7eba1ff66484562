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


def half_interval(values: Sequence[float | int]) -> float | None:
    """Half the width of the 95 % interval of the mean, Student's t; None for less than two."""
    if len(values) < 2:
        return None
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * spread)


def combined(table: pd.DataFrame, axes: Axes, columns: dict[str, str]) -> pd.DataFrame:
    """A row per combination of what is varied, in the order of the axes, over its finished runs.

    Args:
        table: of `tables.results`.
        axes: what was swept.
        columns: of the table, and the names that they get.

    Returns:
        What is varied; `runs`, how many; for every column its mean, and `<name> ci`, half of the
        95 % interval over the runs, None for a single one, or where all are the same; None for both
        where runs lack a value.
    """
    names = varied(axes)
    finished = table[table["status"] == FINISHED]
    groups = finished.groupby(names, sort=False, dropna=False) if names else [((), finished)]
    rows = []
    for values, group in groups:
        row = dict(zip(names, values, strict=True)) | {"runs": len(group)}
        for column, name in columns.items():
            found = group[column] if column in group else pd.Series([None] * len(group))
            if found.isna().any():
                row |= {name: None, f"{name} ci": None}
            else:
                numbers = found.tolist()
                if min(numbers) == max(numbers):  # a count stays a whole number
                    row |= {name: numbers[0], f"{name} ci": None}
                else:
                    row |= {name: float(np.mean(numbers)), f"{name} ci": half_interval(numbers)}
        rows.append(row)
    return pd.DataFrame(rows)


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
