"""Batching, padding, missing inputs and failures, with an encoder that is easy to see through."""

import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.errors import UserError
from fedvlr_jax.server.encode import Encoder, Timing


def embed(params, batch):
    return batch.astype(jnp.float32) @ params


PARAMS = np.arange(6, dtype=np.float32).reshape(2, 3) + 1


def encoder(batch, devices=1, workers=2):
    return Encoder(embed, PARAMS, np.zeros(2, np.int32), batch, workers, devices)


def inputs_of(n, missing=()):
    return [None if k in missing else np.array([k, 2 * k + 1], np.int32) for k in range(n)]


def expected_rows(inputs):
    return np.array([[np.nan] * 3 if x is None else x @ PARAMS for x in inputs], np.float32)


@given(
    n=st.integers(1, 30),
    start=st.integers(0, 29),
    batch=st.sampled_from([1, 3, 8]),
    devices=st.sampled_from([1, 4]),
    missing=st.sets(st.integers(0, 29)),
)
def test_rows_in_order_whatever_the_batch(n, start, batch, devices, missing):
    inputs = inputs_of(n, missing)
    start = min(start, n)
    found = list(encoder(batch, devices).rows(inputs.__getitem__, start, n))
    sizes = [len(rows) for rows in found]
    size = -(-batch // devices) * devices
    assert all(s == size for s in sizes[:-1])
    assert sum(sizes) == n - start
    if found:
        np.testing.assert_array_equal(np.concatenate(found), expected_rows(inputs)[start:])


def test_memory_is_bounded_by_the_batches_ahead():
    loaded, yielded, most = [0], [0], [0]
    lock = threading.Lock()

    def load(k):
        with lock:
            loaded[0] += 1
            most[0] = max(most[0], loaded[0] - yielded[0])
        return np.array([k, k], np.int32)

    for rows in encoder(batch=4).rows(load, 0, 400):
        yielded[0] += len(rows)
        time.sleep(0.001)
    # Three batches ahead, one computing, one being handed on.
    assert 8 <= most[0] <= 4 * 5


def test_loading_goes_on_while_the_devices_compute():
    def slow(params, batch):
        return embed(params, batch)

    def load(k):
        time.sleep(0.02)
        return np.array([k, k], np.int32)

    begun = time.perf_counter()
    model = Encoder(slow, PARAMS, np.zeros(2, np.int32), 4, workers=4)
    for _ in model.rows(load, 0, 80):
        time.sleep(0.02)  # what a busy device costs this thread
    assert time.perf_counter() - begun < 80 * 0.02  # one after the other, it takes 2.0 s


def test_waiting_is_told():
    timing = Timing()

    def load(k):
        time.sleep(0.01)
        return np.array([k, k], np.int32)

    list(encoder(batch=2, workers=1).rows(load, 0, 40, timing))
    assert 0.5 * timing.total < timing.idle < timing.total
    quick = Timing()
    list(encoder(batch=2).rows(inputs_of(40).__getitem__, 0, 40, quick))
    assert quick.idle < 0.5 * timing.idle


def test_an_error_while_loading_comes_through_and_stops_the_threads():
    before = threading.active_count()

    def load(k):
        if k == 9:
            raise ZeroDivisionError
        return np.array([k, k], np.int32)

    with pytest.raises(ZeroDivisionError):
        list(encoder(batch=2).rows(load, 0, 100))
    assert threading.active_count() == before


def test_an_embedding_that_is_not_finite_is_refused():
    def broken(params, batch):
        return embed(params, batch) / (batch[:, :1] - 3)

    model = Encoder(broken, PARAMS, np.zeros(2, np.int32), 4)
    with pytest.raises(UserError, match="not finite"):
        list(model.rows(inputs_of(8).__getitem__, 0, 8))
    # Of an item without input nothing is expected.
    found = list(model.rows(inputs_of(8, {3}).__getitem__, 0, 8))
    assert np.isnan(np.concatenate(found)[3]).all()
