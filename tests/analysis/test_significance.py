import itertools

import numpy as np
import pytest

from fedvlr_jax.analysis.significance import gains, paired


def test_gains_are_the_discounted_hits_averaged_over_seeds():
    ranks = np.array([[0, 2, 50], [1, 2, 49]])
    expected = [100 * (1 + 1 / np.log2(3)) / 2, 50, 100 / np.log2(51) / 2]
    np.testing.assert_allclose(gains(ranks), expected)


def test_the_p_value_is_that_of_all_flips_of_signs():
    first, second = np.array([3.0, 1, 4, 1, 5, 9, 2]), np.array([2.0, 3, 1, 0, 1, 2, 1])
    difference = first - second
    means = [
        np.mean(difference * signs) for signs in itertools.product((-1, 1), repeat=len(difference))
    ]
    by_hand = np.mean(np.abs(means) >= abs(difference.mean()) - 1e-9)
    assert paired(first, second).p_value == pytest.approx(by_hand, abs=0.01)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        first = rng.exponential(2.0, 80)
        second = first - 0.5 + rng.standard_normal(80)
        found = paired(first, second, seed)
        held += found.low <= 0.5 <= found.high
    # 57 of 60 expected; 51 or fewer happen once in a hundred times.
    assert held >= 52


def test_equal_methods_do_not_differ():
    found = paired(np.ones(5), np.ones(5))
    assert (found.mean, found.low, found.high, found.p_value, found.users) == (0, 0, 0, 1, 5)


def test_over_nobody_there_is_no_difference():
    found = paired(np.zeros(0), np.zeros(0))
    assert found.users == 0
    assert np.isnan([found.mean, found.low, found.high, found.p_value]).all()
