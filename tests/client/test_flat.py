"""States laid flat: nothing is lost, the router's kernel comes first, zeros fill a row up."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_jax import backbones
from fedvlr_jax.client.flat import TILE, flatten, row_numbers, unflatten
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.names import BACKBONES

models = st.builds(
    ClientModel,
    backbone=st.sampled_from([backbones.get(name) for name in BACKBONES]),
    n_views=st.integers(1, 4),
    dim=st.integers(1, 9),
    routed=st.booleans(),
    fused=st.booleans(),
    pool=st.integers(0, 5),
    longest=st.integers(1, 7),
)


@settings(max_examples=40)
@given(models, st.integers(0, 99))
def test_a_state_comes_back_from_its_row(model, seed):
    rng = np.random.default_rng(seed)
    shapes, structure = jax.tree.flatten(model.initial_shapes)
    leaves = [rng.standard_normal(x.shape).astype("f4") for x in shapes]
    row = flatten(jax.tree.unflatten(structure, leaves))
    assert row.shape == (row_numbers(model),)
    assert row.dtype == np.float32
    found, same = jax.tree.flatten(unflatten(model, row))
    assert same == structure
    for a, b in zip(found, leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    # Every number once, and zeros.
    numbers = np.concatenate([leaf.ravel() for leaf in leaves])
    assert len(numbers) == model.private_numbers()
    np.testing.assert_array_equal(np.sort(row[: len(numbers)]), np.sort(numbers))
    assert not np.any(row[len(numbers) :])
    assert len(row) - len(numbers) < TILE
    assert len(row) % TILE == 0


@pytest.mark.parametrize("backbone", ["fedavg", "fedrap"])
def test_a_row_begins_with_the_routers_kernel(backbone):
    model = ClientModel(backbones.get(backbone), 3, 6, routed=True, longest=2)
    state = model.init(jax.random.key(0), jax.random.key(1))
    kernel = np.asarray(state.router["params"]["hidden"]["kernel"])
    assert kernel.shape == (18, 6)
    np.testing.assert_array_equal(flatten(state)[: kernel.size], kernel.ravel())
