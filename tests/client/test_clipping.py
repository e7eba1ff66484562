"""Clipping of a client's whole upload, against adding up its rows one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.client.privacy import clipped
from fedvlr_jax.protocol import Rows, Terms, Upload
from tests.client.alone import table

N_ITEMS, WIDTH = 8, (2, 3)


def upload(kind, items, seed, shared=True):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    places = jnp.asarray(items, jnp.int32)
    gradient = {
        "rows": lambda: Rows(places, normal(len(items), *WIDTH)),
        "terms": lambda: Terms(places, normal(3, len(items)), normal(3, *WIDTH)),
        "terms of all items": lambda: Terms(None, normal(3, N_ITEMS), normal(3, *WIDTH)),
    }[kind]()
    return Upload(gradient, {"w": normal(4)} if shared else None, jnp.float32(1), jnp.float32(2))


def norm_of(upload):
    """The L2 norm of the upload as a table of items, and of what is shared."""
    shared = 0 if upload.shared is None else np.square(upload.shared["w"]).sum()
    return float(np.sqrt(np.square(table(upload, N_ITEMS)).sum() + shared))


@given(
    kind=st.sampled_from(["rows", "terms", "terms of all items"]),
    items=st.sampled_from([1, 4, 12]).flatmap(  # every length is compiled
        lambda n: st.lists(st.integers(0, N_ITEMS - 1), min_size=n, max_size=n)
    ),
    seed=st.integers(0, 1000),
    norm=st.floats(0.01, 20),
    shared=st.booleans(),
)
def test_the_norm_is_that_of_the_rows_added_up_by_item(kind, items, seed, norm, shared):
    before = upload(kind, items, seed, shared)
    after = clipped(before, jnp.float32(norm))
    own = norm_of(before)
    assert norm_of(after) == pytest.approx(min(own, norm), rel=1e-4)
    scale = min(1.0, norm / own)
    found, expected = table(after, N_ITEMS), scale * table(before, N_ITEMS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (float(after.weight), float(after.loss)) == (1, 2)


@pytest.mark.parametrize("kind", ["rows", "terms", "terms of all items"])
def test_nothing_stays_nothing(kind):
    before = upload(kind, [1, 1], 0, shared=False)
    before = jax.tree.map(lambda x: x if x.dtype == jnp.int32 else jnp.zeros_like(x), before)
    assert not table(clipped(before, jnp.float32(0.5)), N_ITEMS).any()
