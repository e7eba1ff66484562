"""What an aggregation makes of one client's whole upload, against its table of all items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.aggregation import Aggregation
from fedvlr_jax.client.whole import changed
from tests.client.alone import table
from tests.client.test_clipping import N_ITEMS, upload

LARGEST = 0.7


def clip(gradient):
    return jax.tree.map(lambda x: jnp.clip(x, -LARGEST, LARGEST), gradient)


@given(
    kind=st.sampled_from(["rows", "terms", "terms of all items"]),
    items=st.sampled_from([1, 4, 12]).flatmap(  # every length is compiled
        lambda n: st.lists(st.integers(0, N_ITEMS), min_size=n, max_size=n)
    ),
    seed=st.integers(0, 1000),
    weight=st.sampled_from([0.0, 0.5, 1.0, 7.0]),
    shared=st.booleans(),
)
def test_it_gets_rows_by_item_without_the_weight(kind, items, seed, weight, shared):
    one = upload(kind, items, seed, shared)
    scaled = jax.tree.map(lambda x: weight * x if x.dtype == jnp.float32 else x, one.gradient)
    if kind != "rows":  # of a product one factor
        scaled = one.gradient._replace(coefficients=weight * one.gradient.coefficients)
    before = one._replace(
        gradient=scaled,
        shared=jax.tree.map(lambda x: weight * x, one.shared),
        weight=jnp.float32(weight),
    )
    after = changed(Aggregation("clipped", clip), before, N_ITEMS)
    places = np.asarray(after.gradient.items)
    real = places[places < N_ITEMS]
    assert len(set(real)) == len(real), "every item once"
    kept = jnp.where(after.gradient.items < N_ITEMS, after.gradient.items, N_ITEMS)
    found = table(after._replace(gradient=after.gradient._replace(items=kept)), N_ITEMS)
    expected = weight * np.clip(table(one, N_ITEMS), -LARGEST, LARGEST)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if shared:
        expected = weight * np.clip(one.shared["w"], -LARGEST, LARGEST)
        np.testing.assert_allclose(after.shared["w"], expected, atol=1e-6)
    assert (float(after.weight), float(after.loss)) == (weight, 2)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_what_is_added_to_nothing_reaches_no_padding(weight):
    before = upload("rows", [3, N_ITEMS, N_ITEMS], 0)._replace(weight=jnp.float32(weight))
    add = Aggregation("more", lambda gradient: jax.tree.map(lambda x: x + 1, gradient))
    after = changed(add, before, N_ITEMS).gradient
    real = np.asarray(after.items) < N_ITEMS
    assert real.sum() == 1
    assert not np.asarray(after.values)[~real].any()
