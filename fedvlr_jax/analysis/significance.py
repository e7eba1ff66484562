"""Whether one method beats another, paired over users."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from fedvlr_jax.analysis import metrics

_RESAMPLES = 9999
_LEVEL = 0.95


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


def gains(ranks: Int[np.ndarray, "seeds users"], cutoff: int = 50) -> Float[np.ndarray, " users"]:
    """NDCG@cutoff in percent of every user, averaged over seeds.

    Args:
        ranks: of every user's held-out item under every seed, 0 for the first; none is -1.
        cutoff: ranks from here on count nothing.
    """
    return 100 * metrics.gains(ranks, cutoff).mean(axis=0)


def paired(
    first: Float[np.ndarray, " users"], second: Float[np.ndarray, " users"], seed: int = 0
) -> Difference:
    """The difference first - second, paired over users.

    The interval is a bias-corrected bootstrap over users (Efron 1987), the p-value that of a
    permutation test that flips the sign of users' differences. Users whose difference is 0
    everywhere make both trivial: the interval is then a point and the p-value 1.

    Args:
        first: a number of every user.
        second: the other method's.
        seed: of the resampling.
    """
    difference = first - second
    if not len(difference):
        return Difference(*[float("nan")] * 4, 0)
    mean = float(difference.mean())
    if not difference.any() or len(difference) < 2:
        return Difference(mean, mean, mean, 1.0, len(difference))
    options = {"n_resamples": _RESAMPLES, "rng": np.random.default_rng(seed)}
    interval = stats.bootstrap(
        (difference,), np.mean, confidence_level=_LEVEL, batch=1000, **options
    ).confidence_interval
    test = stats.permutation_test(
        (difference,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        batch=1000,
        **options,
    )
    return Difference(
        mean, float(interval.low), float(interval.high), float(test.pvalue), len(difference)
    )
