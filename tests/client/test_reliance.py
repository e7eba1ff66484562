import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.client.reliance import reliance


@pytest.mark.parametrize("backbone", ["fedavg", "fedncf"])
def test_reliance_is_how_far_scores_move_when_a_modality_is_taken_out(backbone):
    rng = np.random.default_rng(0)
    views, *removed = jnp.asarray(rng.standard_normal((4, 11, 2, 8)), jnp.float32)
    removed[2] = views  # nobody reads the third modality
    model = ClientModel(backbones.get(backbone), 2, 8, routed=True)
    network = model.backbone.init_network(jax.random.key(2), 8)
    state = model.init(jax.random.key(0), jax.random.key(1))
    weights = jnp.array([0.7, 0.3])
    found = reliance(model, network, state, weights, views, jnp.stack(removed))

    def scores(rows):
        return np.array(
            [
                model.backbone.score(network, state.head, (0.7 * r[0] + 0.3 * r[1])[None])[0]
                for r in rows
            ]
        )

    moved = [np.std(scores(views) - scores(without)) for without in removed]
    np.testing.assert_allclose(found, np.array(moved) / sum(moved), rtol=1e-4, atol=1e-6)
    assert found[2] < 1e-6  # rounding may leave some
    assert found.sum() == pytest.approx(1)
