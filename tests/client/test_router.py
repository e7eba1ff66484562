import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.backbones.base import Backbone
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.client.router import Router, pool
from tests.client.alone import new_state


def test_a_new_router_weighs_all_views_alike():
    router = Router(n_views=4, hidden=8)
    weights = router.apply(router.init(jax.random.key(0), jnp.zeros(20)), jnp.arange(20.0))
    np.testing.assert_allclose(weights, 0.25)


def test_pooling_is_the_mean_of_real_places():
    rows = jnp.arange(24.0).reshape(4, 3, 2)
    real = jnp.array([True, True, False, False])
    np.testing.assert_allclose(pool(rows, real), rows[:2].mean(axis=0).ravel())
    np.testing.assert_array_equal(pool(rows, jnp.zeros(4, bool)), 0)


def test_router_size_is_what_the_paper_counts():
    # Table 3 of the paper: about 12.5 thousand parameters for three views of width 64.
    params = Router(3, hidden=64).init(jax.random.key(0), jnp.zeros(192))
    assert sum(x.size for x in jax.tree.leaves(params)) == 192 * 64 + 64 + 64 * 3 + 3


@pytest.mark.parametrize("routed", [True, False])
def test_linear_scores_equal_the_mixed_item_vectors(routed):
    fedavg = backbones.get("fedavg")
    by_hand = Backbone("plain", fedavg.init_head, fedavg.score, fedavg.weight, linear=None)
    rows = jax.random.normal(jax.random.key(1), (5, 3, 8))
    fast, slow = (ClientModel(b, 3, 8, routed) for b in (fedavg, by_hand))
    state = new_state(fast)
    state = state._replace(head=jax.tree.map(lambda x: x + 0.5, state.head))
    weights = jnp.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(
        *(model.scores(None, state, weights, rows) for model in (fast, slow)), atol=1e-5
    )


def test_without_a_router_views_count_alike():
    model = ClientModel(backbones.get("fedavg"), 1, 8, routed=False)
    state = new_state(model)
    assert state.router is None
    weights = model.view_weights(state, jnp.ones((2, 1, 8)), jnp.ones(2, bool))
    np.testing.assert_array_equal(weights, [1.0])
