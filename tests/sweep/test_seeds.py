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
    # Of two runs their range.
    assert found["score low"].tolist() == [100.0, 20.0, 100.0, 20.0]
    assert found["score high"].tolist() == [110.0, 30.0, 110.0, 30.0]
    # All the same: no interval, and a count stays one.
    assert found["n"].tolist() == [7, 7, 7, 7]
    assert found["n low"].isna().all()
    assert found["partly"].isna().tolist() == [False, False, True, True]


def test_without_axes_all_runs_are_one_combination():
    found = seeds.combined(table(), {"seed": (0, 1)}, {"score": "score"})
    assert found["runs"].tolist() == [8]


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9))
def test_the_interval_is_students(values):
    if np.ptp(values) < 1e-6:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert seeds.interval(values) == pytest.approx(tuple(expected), rel=1e-6)


COLUMNS = (
    *("test/warm/ndcg@50", "test/hr@10", "popularity/test/warm/ndcg@50", "valid/cold/ndcg@20"),
    *("timing/round_seconds_median", "timing/client_rounds_per_second", "memory/peak_rss_gb"),
    *("communication/upload_kb", "reliance/mean/image", "router/mean/sum", "data/padded_share"),
    "best_round",
)


@pytest.mark.parametrize("column", COLUMNS)
@given(st.data())
def test_intervals_stay_within_what_a_quantity_can_be(column, data):
    least, most = seeds.bounds(column)
    top = most if np.isfinite(most) else 1e4
    assert least == 0
    values = data.draw(st.lists(st.floats(0, top), min_size=1, max_size=6))
    found = seeds.interval(values, least, most)
    if min(values) == max(values):
        assert found is None
    else:
        low, high = found
        assert least <= low <= np.mean(values) + 1e-9
        assert np.mean(values) - 1e-9 <= high <= most


@given(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)))
def test_two_runs_have_a_range(pair):
    expected = None if pair[0] == pair[1] else (min(pair), max(pair))
    assert seeds.interval(pair) == expected


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [3, 3, 3]])
def test_one_run_or_equal_ones_have_no_interval(values):
    assert seeds.interval(values) is None


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
