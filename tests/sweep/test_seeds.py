import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedvlr_jax.sweep import seeds

AXES = {"variant": ("mlp", "id"), "clients": (100, 20), "seed": (0, 1), "rounds": (5,)}


def table():
    rows = [
        {"run": f"{v}{c}{s}", "status": "finished", "variant": v, "clients": c, "seed": s}
        | {"score": 10.0 * s + c, "count": 7, "partly": None if v == "id" and s else 1.0}
        for s in (1, 0)
        for c in (20, 100)
        for v in ("id", "mlp")
    ]
    failed = {"run": "x", "status": "failed", "variant": "id", "clients": 20, "seed": 2}
    return pd.DataFrame([*rows, failed])


def test_what_varies_and_along_what():
    assert seeds.varied(AXES) == ["variant", "clients"]
    assert seeds.along(AXES) == "clients"
    assert seeds.along({"dim": (4, 8), "server_lr": (0.1, 0.2)}) == "dim"
    assert seeds.along({"variant": ("id", "mlp"), "seed": (0, 1)}) is None


def test_runs_come_in_the_order_of_the_axes():
    found = seeds.in_order(table(), AXES)
    pairs = list(dict.fromkeys(zip(found["variant"], found["clients"], strict=True)))
    assert pairs == [("mlp", 100), ("mlp", 20), ("id", 100), ("id", 20)]


def test_a_row_per_combination_over_finished_runs():
    columns = {"score": "score", "count": "n", "partly": "partly"}
    found = seeds.combined(seeds.in_order(table(), AXES), AXES, columns)
    assert found["runs"].tolist() == [2, 2, 2, 2]
    assert found["score"].tolist() == [105.0, 25.0, 105.0, 25.0]
    # Two numbers 10 apart: a standard error of 5, times t(0.975, 1) = 12.706.
    np.testing.assert_allclose(found["score ci"], 5 * 12.7062, rtol=1e-5)
    # All the same: no interval, and a count stays one.
    assert found["n"].tolist() == [7, 7, 7, 7]
    assert found["n ci"].isna().all()
    assert found["partly"].isna().tolist() == [False, False, True, True]


def test_without_axes_all_runs_are_one_combination():
    found = seeds.combined(table(), {"seed": (0, 1)}, {"score": "score"})
    assert found["runs"].tolist() == [8]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_the_interval_is_students(values):
    if np.ptp(values) < 1e-6:
        return
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert seeds.half_interval(values) == pytest.approx((high - low) / 2, rel=1e-6)


def test_one_run_has_no_interval():
    assert seeds.half_interval([1.0]) is None


@given(st.floats(-3, 3), st.floats(0.01, 100))
def test_slopes_are_powers(power, factor):
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    found = seeds.slope(x, factor * x**power)
    np.testing.assert_allclose(found, [power, 0.0, np.log(factor)], atol=1e-5)


def test_two_points_have_a_power_without_an_interval():
    power, width, _ = seeds.slope(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert power == pytest.approx(2)
    assert np.isnan(width)


@pytest.mark.parametrize(("x", "y"), [([1, 1], [1, 2]), ([0, 1], [1, 2]), ([1, 2], [0, 2])])
def test_no_power_without_logarithms(x, y):
    assert seeds.slope(np.array(x, float), np.array(y, float)) is None
