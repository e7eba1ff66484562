import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedvlr_jax.analysis.statistics import (
    around,
    bounds,
    gains,
    interval,
    paired,
    slope,
    spread,
    welch,
)


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


def test_many_users_are_compared_by_student():
    rng = np.random.default_rng(0)
    first, second = rng.exponential(2.0, 30_000), rng.exponential(2.0, 30_000)
    found, expected = paired(first, second), stats.ttest_rel(first, second)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("values", [[1.0, 4.0], [1.0, 2.0, 6.0], [3.0] * 4, [2.0], []])
def test_an_interval_is_known_from_mean_and_deviation(values):
    told = spread("x", values) if values else {"x": 5.0, "x sd": None}
    found = around(told["x"], told["x sd"] or 0.0, len(values))
    assert found == pytest.approx(interval(values) or (told["x"],) * 2)


def test_a_difference_of_means_has_the_interval_of_welch():
    first, second = [1.0, 2.0, 4.0], [0.0, 1.0, 5.0, 2.0]
    variances = [np.var(x, ddof=1) / len(x) for x in (first, second)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    mean = np.mean(first) - np.mean(second)
    assert welch(first, second) == pytest.approx((mean - half, mean + half))
    assert welch(first[:2], second) is None
    assert welch([1.0] * 3, [1.0] * 3) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9))
def test_the_interval_is_students(values):
    if np.ptp(values) < 1e-6:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert interval(values) == pytest.approx(tuple(expected), rel=1e-6)


COLUMNS = (
    *("test/warm/ndcg@50", "test/hr@10", "popularity/test/warm/ndcg@50", "valid/cold/ndcg@20"),
    *("timing/round_seconds_median", "timing/client_rounds_per_second", "memory/peak_rss_gb"),
    *("communication/upload_kb", "reliance/mean/image", "router/mean/sum", "data/padded_share"),
    "best_round",
)


@pytest.mark.parametrize("column", COLUMNS)
@given(st.data())
def test_intervals_stay_within_what_a_quantity_can_be(column, data):
    least, most = bounds(column)
    top = most if np.isfinite(most) else 1e4
    assert least == 0
    values = data.draw(st.lists(st.floats(0, top), min_size=1, max_size=6))
    found = interval(values, least, most)
    if min(values) == max(values):
        assert found is None
    else:
        low, high = found
        assert least <= low <= np.mean(values) + 1e-9
        assert np.mean(values) - 1e-9 <= high <= most


@given(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)))
def test_two_runs_have_a_range(pair):
    expected = None if pair[0] == pair[1] else (min(pair), max(pair))
    assert interval(pair) == expected


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [3, 3, 3]])
def test_one_run_or_equal_ones_have_no_interval(values):
    assert interval(values) is None


@given(st.floats(-3, 3), st.floats(0.01, 100))
def test_slopes_are_powers(power, factor):
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    found = slope(x, factor * x**power)
    np.testing.assert_allclose(found, [power, 0.0, np.log(factor)], atol=1e-5)


def test_two_points_have_a_power_without_an_interval():
    power, width, _ = slope(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert power == pytest.approx(2)
    assert np.isnan(width)


@pytest.mark.parametrize(("x", "y"), [([1, 1], [1, 2]), ([0, 1], [1, 2]), ([1, 2], [0, 2])])
def test_no_power_without_logarithms(x, y):
    assert slope(np.array(x, float), np.array(y, float)) is None
