import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis.recovery import correlation


@given(st.integers(0, 2**31), st.integers(3, 40))
def test_correlation_is_that_of_ranks(seed, n):
    rng = np.random.default_rng(seed)
    preference, reliance = rng.dirichlet(np.ones(3), (2, n))
    planted, learned = (x[:, 0] - x[:, 1] for x in (preference, reliance))
    ranks = [(x[:, None] > x).sum(axis=1) for x in (planted, learned)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert correlation(preference, reliance) == pytest.approx(expected)
    assert correlation(preference, preference) == pytest.approx(1)


def test_where_nothing_can_be_told_there_is_no_number():
    preference = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    assert correlation(preference[:2], preference[:2]) is None
    assert correlation(preference, np.full((5, 3), 1 / 3)) is None
