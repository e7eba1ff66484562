"""Means with their intervals, slopes, and whether one method beats another, paired over users."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from fedvlr_jax.analysis import metrics

_LEVEL = 0.95  # of every interval
_RESAMPLES = 9999
# Users up to whom differences are resampled. Of more, a mean is as good as normal.
_MOST_RESAMPLED = 20_000
_PERCENT = ("ndcg@", "hr@", "mrr@", "coverage@")  # in columns of percentages
Interval = tuple[float, float]


def bounds(column: str) -> Interval:
    """What a column of results can be at least and at most."""
    if column in ("train_loss", "gain %"):  # a backbone's penalty may take a loss below 0
        return -np.inf, np.inf
    if column.startswith("spearman"):
        return -1.0, 1.0
    if (
        column.startswith(("reliance/", "router/"))
        or column.endswith("_share")
        or "gini@" in column
    ):
        return 0.0, 1.0
    return 0.0, 100.0 if any(name in column for name in _PERCENT) else np.inf


def interval(
    values: Sequence[float | int], least: float = -np.inf, most: float = np.inf
) -> Interval | None:
    """The 95 % interval of the mean, Student's t, within what the quantity can be.

    Two numbers say next to nothing of their spread (the interval would be 9 times as wide as they
    are apart), so of two it is their range. None for less than two, and where all are the same.
    """
    if len(values) < 2 or min(values) == max(values):
        return None
    if len(values) == 2:
        return float(min(values)), float(max(values))
    return around(float(np.mean(values)), np.std(values, ddof=1), len(values), (least, most))


def around(
    mean: float, deviation: float, number: int, limits: Interval = (-np.inf, np.inf)
) -> Interval:
    """The `interval` of so many numbers with this mean and standard deviation.

    Of less than two, both ends are the mean.
    """
    if number < 2 or not deviation > 0:
        return mean, mean
    factor = stats.t.ppf((1 + _LEVEL) / 2, number - 1) if number > 2 else 1.0
    half = factor * (deviation / np.sqrt(number))
    return float(max(mean - half, limits[0])), float(min(mean + half, limits[1]))


def spread(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """`name`: mean, and `name sd`: standard deviation of several; None if one is missing."""
    if None in values:
        return {name: None, f"{name} sd": None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)), f"{name} sd": deviation}


def welch(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean of `first` minus that of `second` (Welch 1947).

    None for less than three of either, and where all of both are the same.
    """
    if min(len(first), len(second)) < 3 or np.ptp(first) + np.ptp(second) == 0:
        return None
    limits = stats.ttest_ind(first, second, equal_var=False).confidence_interval(_LEVEL)
    return float(limits.low), float(limits.high)


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
    fit = stats.linregress(np.log(x), np.log(y))
    freedom = len(x) - 2
    error = fit.stderr if np.ptp(y) else 0.0  # of a constant scipy's is NaN
    width = stats.t.ppf((1 + _LEVEL) / 2, freedom) * error if freedom else np.nan
    return float(fit.slope), float(width), float(fit.intercept)


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval and the two-sided p-value of none, over `users`.

    All are NaN where there is no user.
    """

    mean: float
    low: float
    high: float
    p_value: float
    users: int

    def __str__(self) -> str:
        """For people."""
        p = "p < 0.001" if self.p_value < 1e-3 else f"p = {self.p_value:.2g}"
        return f"{self.mean:+.2f} ({self.low:.2f} to {self.high:.2f}), {p}"


def gains(ranks: Int[np.ndarray, "seeds users"], cutoff: int = 50) -> Float[np.ndarray, " users"]:
    """NDCG@cutoff in percent of every user, averaged over seeds.

    Args:
        ranks: of every user's held-out item under every seed, 0 for the first; none is -1.
        cutoff: the value of K.
    """
    return 100 * metrics.gains(ranks, cutoff).mean(axis=0)


def paired(
    first: Float[np.ndarray, " users"], second: Float[np.ndarray, " users"], seed: int = 0
) -> Difference:
    """The difference first - second, paired over users.

    The interval is a bias-corrected bootstrap over users (Efron 1987), the p-value that of a
    permutation test that flips the sign of users' differences; of more than 20,000 users both are
    Student's. Users whose difference is 0 everywhere make both trivial: the interval is then a
    point and the p-value 1.

    Args:
        first: a number of every user.
        second: the other method's.
        seed: of the resampling.
    """
    difference = first - second
    number = len(difference)
    if not number:
        return Difference(*[float("nan")] * 4, 0)
    mean = float(difference.mean())
    if not difference.any() or number < 2:
        return Difference(mean, mean, mean, 1.0, number)
    if number > _MOST_RESAMPLED:
        low, high = around(mean, difference.std(ddof=1), number)
        return Difference(mean, low, high, float(stats.ttest_1samp(difference, 0).pvalue), number)
    options = {"n_resamples": _RESAMPLES, "batch": 1000, "rng": np.random.default_rng(seed)}
    bootstrap = stats.bootstrap((difference,), np.mean, confidence_level=_LEVEL, **options)
    test = stats.permutation_test(
        (difference,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", **options
    )
    low, high = bootstrap.confidence_interval
    return Difference(mean, float(low), float(high), float(test.pvalue), number)
