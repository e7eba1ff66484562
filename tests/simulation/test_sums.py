"""Uploads of a chunk of clients against adding them up one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.protocol import CohortSum, Rows, Terms, Upload
from fedvlr_jax.simulation.sums import added, in_fixed_point
from tests.client.alone import table

N_ITEMS, VIEWS, DIM, CLIENTS, PLACES = 7, 2, 3, 4, 5
WIDTH = VIEWS * DIM
added_in_one = jax.jit(added)
KINDS = ("rows", "a term", "terms", "terms of all items", "nothing")


def uploads(kind, rng):
    """Of several clients, one by one."""

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def one():
        items = jnp.asarray(rng.integers(0, N_ITEMS + 1, PLACES), jnp.int32)  # one is padding
        gradient = {
            "rows": lambda: Rows(items, normal(PLACES, VIEWS, DIM)),
            "a term": lambda: Terms(items, normal(1, PLACES), normal(1, VIEWS, DIM)),
            "terms": lambda: Terms(items, normal(3, PLACES), normal(3, VIEWS, DIM)),
            "terms of all items": lambda: Terms(None, normal(2, N_ITEMS), normal(2, VIEWS, DIM)),
            "nothing": lambda: None,
        }[kind]()
        return Upload(gradient, {"w": normal(3)}, normal(), normal())

    return [one() for _ in range(CLIENTS)]


@given(kind=st.sampled_from(KINDS), arrivals=st.integers(1, 2), seed=st.integers(0, 1000))
def test_sums_are_those_of_the_uploads_that_arrive_then(kind, arrivals, seed):
    rng = np.random.default_rng(seed)
    own = uploads(kind, rng)
    arrival = rng.integers(0, arrivals, CLIENTS)
    before = CohortSum(
        jnp.ones((arrivals, N_ITEMS, WIDTH)),
        {"w": jnp.ones((arrivals, 3))},
        jnp.ones(arrivals),
        jnp.ones(arrivals),
    )
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *own)
    after = added_in_one(before, stacked, jnp.asarray(arrival, jnp.int32))
    for time in range(arrivals):
        those = [own[u] for u in np.flatnonzero(arrival == time)]
        gradient = np.ones((N_ITEMS, WIDTH))
        if kind != "nothing":
            gradient = gradient + sum(table(upload, N_ITEMS) for upload in those)
        np.testing.assert_allclose(after.gradient[time], gradient, atol=1e-5)
        for found, values in (
            (after.shared["w"][time], [upload.shared["w"] for upload in those]),
            (after.weight[time], [upload.weight for upload in those]),
            (after.loss[time], [upload.loss for upload in those]),
        ):
            np.testing.assert_allclose(found, 1 + sum(values), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_sums_in_fixed_point_are_exact_and_the_same_in_every_order(scale):
    rng = np.random.default_rng(0)
    items = rng.integers(0, N_ITEMS + 1, 999).astype(np.int32)
    rows = (scale * rng.standard_normal((999, VIEWS, DIM)) ** 5).astype(np.float32)
    start = (scale * rng.standard_normal((N_ITEMS, VIEWS, DIM))).astype(np.float32)
    exact = np.zeros((N_ITEMS + 1, VIEWS, DIM))
    np.add.at(exact, items, rows.astype(np.float64))
    in_one = jax.jit(in_fixed_point)
    found = np.asarray(in_one(start, items, rows))
    np.testing.assert_allclose(found, start + exact[:N_ITEMS], rtol=1e-6, atol=1e-5 * scale)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(999)
        np.testing.assert_array_equal(in_one(start, items[order], rows[order]), found)


def test_no_rows_in_fixed_point_change_nothing():
    start, items = jnp.ones((N_ITEMS, VIEWS, DIM)), jnp.zeros(3, jnp.int32)
    np.testing.assert_array_equal(in_fixed_point(start, items, jnp.zeros((3, VIEWS, DIM))), start)
