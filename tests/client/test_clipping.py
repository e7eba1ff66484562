"""Clipping of a client's whole upload, against adding up its rows one by one."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.client.privacy import clipped
from fedvlr_jax.protocol import Upload

N_ITEMS, VIEWS, DIM = 8, 2, 3


def upload(items, seed, shared=True):
    rng = np.random.default_rng(seed)
    return Upload(
        items=jnp.asarray(items, jnp.int32),
        gradient=jnp.asarray(rng.standard_normal((len(items), VIEWS, DIM)), jnp.float32),
        shared={"w": jnp.asarray(rng.standard_normal(4), jnp.float32)} if shared else None,
        weight=jnp.float32(1),
        loss=jnp.float32(2),
    )


def norm_of(upload):
    """The L2 norm of the upload as a table of items, and of what is shared."""
    table = np.zeros((N_ITEMS + 1, VIEWS, DIM))
    for item, row in zip(np.asarray(upload.items), np.asarray(upload.gradient), strict=True):
        table[item] += row
    shared = 0 if upload.shared is None else np.square(upload.shared["w"]).sum()
    return float(np.sqrt(np.square(table).sum() + shared))


@given(
    items=st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    norm=st.floats(0.01, 20),
    shared=st.booleans(),
)
def test_the_norm_is_that_of_the_rows_added_up_by_item(items, seed, norm, shared):
    before = upload(items, seed, shared)
    after = clipped(before, jnp.float32(norm))
    own = norm_of(before)
    assert norm_of(after) == pytest.approx(min(own, norm), rel=1e-4)
    scale = min(1.0, norm / own)
    np.testing.assert_allclose(after.gradient, scale * before.gradient, rtol=1e-4, atol=1e-6)
    assert (float(after.weight), float(after.loss)) == (1, 2)


def test_nothing_stays_nothing():
    before = upload([1, 1], 0, shared=False)
    before = before._replace(gradient=jnp.zeros_like(before.gradient))
    np.testing.assert_array_equal(clipped(before, jnp.float32(0.5)).gradient, 0)
