"""What a router follows: heads solved anew without an item, and embeddings without a client.

The error itself, and the router's steps along it, are held against refits one by one in
tests/simulation/test_federated_round.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fedvlr_jax import backbones
from fedvlr_jax.client.left_out import error, without_own
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.protocol import Contributions, LeastSquares

N_CLIENTS, N_ITEMS, DIM = 40, 15, 4
MODEL = ClientModel(backbones.get("fedavg"), 2, DIM, routed=True)


def _histories(rng):
    taken = rng.random((N_CLIENTS, N_ITEMS)) < 0.3
    taken[:, -1] = False  # an item that nobody has
    taken[:, -2] = np.arange(N_CLIENTS) == 3  # and one of a single client
    taken[7] = False
    return taken


def test_without_a_client_an_embedding_is_the_sum_over_the_others():
    rng = np.random.default_rng(0)
    taken = _histories(rng)
    popularity = taken.sum(axis=0)
    scaled = taken * np.maximum(popularity, 1) ** -0.25
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    u, embedding = u[:, :DIM], 3.0 * (vt[:DIM].T * s[:DIM])  # any scale
    views = np.stack([embedding, rng.standard_normal((N_ITEMS, DIM))], axis=1)
    known = Contributions(
        jnp.asarray(popularity, jnp.float32),
        jnp.asarray(np.stack([s[:DIM] ** -2.0, np.zeros(DIM)]), jnp.float32),
    )
    problem = LeastSquares(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), known)
    for client in (0, 3, 7, 20):
        history = np.flatnonzero(taken[client])
        items = np.r_[history, np.full(12 - len(history), N_ITEMS)]
        rows = jnp.asarray(views, jnp.float32).at[items].get(mode="clip")
        found = without_own(MODEL, problem, rows, jnp.asarray(items), jnp.asarray(items < N_ITEMS))
        others = np.delete(np.arange(N_CLIENTS), client)
        for place, item in enumerate(history):
            left = popularity[item] - 1
            expected = 3.0 * taken[others, item] @ u[others] * max(left, 1) ** -0.25
            np.testing.assert_allclose(found[place, 0], expected, atol=1e-5)
            np.testing.assert_array_equal(found[place, 1], rows[place, 1])


def test_weights_of_views_that_foretell_have_the_smaller_error():
    rng = np.random.default_rng(1)
    tastes = rng.standard_normal((N_ITEMS, DIM))
    noise = rng.standard_normal((N_ITEMS, DIM))
    views = jnp.asarray(np.stack([tastes, noise], axis=1), jnp.float32)
    history = jnp.argsort(-views[:, 0, 0])[:5]
    rows, real = views[history], jnp.ones(5, bool)
    flat = views.reshape(N_ITEMS, -1)
    problem = LeastSquares(flat.T @ flat, jnp.float32(4 / N_ITEMS), jnp.float32(1.0))
    along = [
        float(error(MODEL, problem, jnp.array([w, 1 - w]), rows, rows, real)[0])
        for w in (0.1, 0.5, 0.9)
    ]
    assert along[0] > along[1] > along[2]


def test_a_history_of_one_item_leaves_nothing_to_learn_from():
    views = jnp.ones((N_ITEMS, 2, DIM))
    flat = views.reshape(N_ITEMS, -1)
    problem = LeastSquares(flat.T @ flat, jnp.float32(0.1), jnp.float32(1.0))
    real = jnp.array([True, False])
    slope = jax.grad(lambda w: error(MODEL, problem, w, views[:2], views[:2], real)[0])
    np.testing.assert_array_equal(slope(jnp.array([0.3, 0.7])), 0)
