"""Rows on disk: appended, gone on with, and finished."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.server import rows as module
from fedvlr_jax.server.rows import RowStore


def filled(folder, rows, key="k"):
    store = RowStore(folder / "image_features.npy", rows.shape[1], key)
    store.append(rows)
    return store


@given(st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(1, 9))
def test_missing_rows_get_the_mean_of_the_others(tmp_path_factory, n, missing, block):
    folder = tmp_path_factory.mktemp("rows")
    rows = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float16)
    gone = [k for k in missing if k < n]
    rows[gone] = np.nan
    whole, module._BLOCK = module._BLOCK, block
    try:
        store = filled(folder, rows.astype(np.float32))
        there = ~np.isnan(rows[:, 0])
        if not there.any():
            assert not store.finish().any()
            assert not (folder / "image_features.npy").exists()
            return
        np.testing.assert_array_equal(store.finish(), there)
    finally:
        module._BLOCK = whole
    found = np.load(folder / "image_features.npy")
    assert found.dtype == np.float16
    expected = rows.copy()
    expected[~there] = rows[there].astype(float).mean(axis=0)
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=2e-3)
    np.testing.assert_array_equal(found[there], rows[there])


def test_goes_on_after_the_last_whole_row(tmp_path):
    rows = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    filled(tmp_path, rows[:5])
    (partial,) = tmp_path.glob("*/rows.f16")
    with open(partial, "ab") as file:
        file.write(b"half")  # what a kill in the middle of a write leaves
    store = RowStore(tmp_path / "image_features.npy", 4, "k")
    assert store.done == 5
    store.append(rows[5:])
    store.finish()
    found = np.load(tmp_path / "image_features.npy")
    np.testing.assert_array_equal(found, rows.astype(np.float16))


def test_another_key_starts_anew(tmp_path):
    filled(tmp_path, np.ones((5, 4), np.float32))
    assert RowStore(tmp_path / "image_features.npy", 4, "k").done == 5
    assert RowStore(tmp_path / "image_features.npy", 4, "other").done == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_key_starts_anew(tmp_path, content):
    filled(tmp_path, np.ones((5, 4), np.float32))
    (key,) = tmp_path.glob("*/key.json")
    key.write_text(content)
    assert RowStore(tmp_path / "image_features.npy", 4, "k").done == 0
