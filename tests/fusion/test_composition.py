import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.fusion.composition import composition
from fedvlr_jax.fusion.operators import Features, Fusion, named
from fedvlr_jax.names import MODALITIES

N_ITEMS, DIM = 30, 8
VIEWS = ("sum", "image", "text_dominant", "id")


@pytest.fixture(scope="module")
def made_of():
    rng = np.random.default_rng(0)
    given = Features(
        *(jnp.asarray(rng.standard_normal((N_ITEMS, width)), jnp.float32) for width in (7, 5))
    )
    fusion = Fusion(named(*VIEWS), N_ITEMS, DIM)
    params = fusion.init(jax.random.key(0), given)
    removed = jnp.stack([fusion.apply(params, given, name) for name in MODALITIES])
    found = np.asarray(composition(fusion.apply(params, given), removed))
    return dict(zip(VIEWS, found, strict=True))


def test_shares_tell_what_views_are_made_of(made_of):
    for shares in made_of.values():
        assert shares.sum() == pytest.approx(1, abs=1e-5)
    # Layer norms give v, c and e the same size, so a sum is made of as much of each.
    np.testing.assert_allclose(made_of["sum"], 1 / 3, atol=0.05)
    np.testing.assert_allclose(made_of["image"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(made_of["id"], [0, 0, 1], atol=1e-6)
    assert made_of["text_dominant"].argmax() == 1
    assert made_of["text_dominant"][1] == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=0.05)


def test_what_moves_all_items_alike_counts_nothing():
    views = jnp.asarray(np.random.default_rng(0).standard_normal((9, 1, 4)), jnp.float32)
    removed = jnp.stack([views + 5, views * 0.5, views])
    np.testing.assert_allclose(composition(views, removed), [[0, 1, 0]], atol=1e-6)
