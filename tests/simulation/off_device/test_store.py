"""The store against a dictionary, whatever is added, however little memory there is."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_jax.simulation.off_device.store import Pool, Store

N_CLIENTS, NUMBERS, ROWS = 12, 5, 4


def new(folder, buffers=3):
    return Store(N_CLIENTS, NUMBERS, folder / "private", Pool(ROWS, NUMBERS, buffers, soon=2))


def fetched(store, clients):
    clients = np.array(clients, np.int64)
    into = np.full((len(clients) + 1, NUMBERS), np.nan, np.float32)
    store.fetch(clients, into, np.arange(len(clients)) + 1)
    return into[1:]


def check(store, expected):
    everybody = np.arange(N_CLIENTS)
    np.testing.assert_array_equal(store.has(everybody), [c in expected for c in everybody])
    here = sorted(expected, reverse=True)
    assert fetched(store, here).tolist() == [expected[c].tolist() for c in here]
    assert store.nbytes == len(expected) * NUMBERS * 4


def fill(store, waves, expected, seed=0):
    rng = np.random.default_rng(seed)
    for wave in waves:
        states = rng.standard_normal((len(wave), NUMBERS)).astype("f4")
        store.add(np.array(wave, np.int32), states)
        expected |= dict(zip(wave, states.copy(), strict=True))
        states[:] = 0  # the store has its own


waves_of_clients = st.lists(
    st.lists(st.integers(0, N_CLIENTS - 1), min_size=1, max_size=ROWS, unique=True), max_size=20
)


@settings(max_examples=40)
@given(first=waves_of_clients, second=waves_of_clients, buffers=st.integers(3, 9))
def test_the_newest_state_counts(first, second, buffers):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        store, expected = new(folder, buffers), {}
        fill(store, first, expected)
        check(store, expected)
        sums = store.write(folder / "checkpoint")
        assert sorted(sums) == sorted(p.name for p in (folder / "checkpoint").iterdir())
        before = dict(expected)
        fill(store, second, expected, seed=1)
        check(store, expected)
        # What was written stays as it was, and another store goes on from it.
        other = new(folder / "other", buffers)
        other.read(folder / "checkpoint")
        check(other, before)
        fill(other, second, before, seed=1)
        check(other, before)
        other.write(folder / "checkpoint2")
        store.read(folder / "checkpoint2")
        check(store, before)


def test_memory_and_disk_stay_bounded(tmp_path):
    store, expected = new(tmp_path), {}
    rng = np.random.default_rng(0)
    for number in range(200):
        wave = rng.permutation(N_CLIENTS)[:ROWS].tolist()
        fill(store, [wave], expected, seed=number)
        segments = store._segments.values()
        assert sum(s.buffer is not None for s in segments) <= 3
        assert sum(len(s.clients) for s in segments) <= 2 * N_CLIENTS + 2 * ROWS
    check(store, expected)
    files = {p.name for p in (tmp_path / "private").iterdir()}
    assert len(files) <= 2 * len(store._segments)
    store.clear()
    assert not (tmp_path / "private").exists()
    check(store, {})


def test_a_checkpoint_shares_the_files_of_the_one_before(tmp_path):
    store, expected = new(tmp_path), {}
    fill(store, [[0, 1, 2, 3]], expected)
    store.write(tmp_path / "a")
    fill(store, [[4, 5, 6]], expected)
    store.write(tmp_path / "b")
    name = "00000000.states.npy"
    assert (tmp_path / "a" / name).samefile(tmp_path / "b" / name)
    store.clear()
    assert len(list((tmp_path / "b").iterdir())) == 4


def test_file_systems_without_links_get_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    store, expected = new(tmp_path), {}
    fill(store, [[0, 1], [1, 5]], expected)
    store.write(tmp_path / "a")
    store.read(tmp_path / "a")
    check(store, expected)


def test_a_pool_is_finite_and_used_again():
    pool = Pool(2, 3, most=3, soon=2)
    taken = [pool.take() for _ in range(3)]
    assert all(buffer.shape == (2, 3) for buffer in taken)
    assert pool.take() is None
    pool.give(taken[1])
    assert pool.take() is taken[1]
    pool.close()


@pytest.mark.parametrize("soon", [0, 5])
def test_closing_a_pool_ends_its_thread(soon):
    pool = Pool(2, 3, most=5, soon=soon)
    pool.close()
    assert not pool._thread.is_alive()
