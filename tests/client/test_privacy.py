"""What leaves a device, and what one upload would tell somebody who could open it.

docs/privacy.md states it in words; these tests show that the words are true, in both directions.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.update import LocalTraining
from fedvlr_jax.client.ways import choose
from fedvlr_jax.fusion import operators
from fedvlr_jax.protocol import (
    Broadcast,
    CohortSum,
    Contributions,
    LeastSquares,
    Rows,
    Squares,
    Terms,
    Upload,
)
from fedvlr_jax.server import aggregate
from tests.client.alone import new_state, rates, sent, whole_round

N_ITEMS, N_VIEWS, DIM = 60, 3, 8
RATES = rates(head=0.1, router=0.1)


@pytest.fixture(scope="module")
def one_upload():
    """A client with eight train items, its state before the round, and its upload."""
    model = ClientModel(backbones.get("fedavg"), N_VIEWS, DIM, routed=True)
    training = LocalTraining(model, epochs=1, negatives=1, optimizer="sgd")
    rng = np.random.default_rng(0)
    history = jnp.array(sorted(rng.permutation(N_ITEMS)[:8].tolist()), jnp.int32)
    state = new_state(model)
    # Move the router away from its equal weights, so that there is something to find out.
    state = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype("f4"), state)
    broadcast = sent(rng.standard_normal((N_ITEMS, N_VIEWS, DIM)))
    data = ClientData(jnp.int32(0), history)
    way = choose(training)
    _, upload = whole_round(way, training, broadcast, state, data, RATES, jax.random.key(2))
    real = jnp.ones(8, bool)
    weights = model.view_weights(state, broadcast.views[history], real)
    return history, state, np.asarray(weights), upload


def rows_of(upload):
    """The items of an upload's places, and their rows."""
    items, coefficients, directions = (np.asarray(x) for x in upload.gradient)
    return items, coefficients.T @ directions.reshape(len(directions), -1)


def test_only_gradients_weight_and_loss_leave_a_device():
    assert Upload._fields == ("gradient", "shared", "weight", "loss", "squares")
    assert Squares._fields == ("coefficients", "directions")
    assert Rows._fields == ("items", "values")
    assert Terms._fields == ("items", "coefficients", "directions")
    private = {*ClientState._fields, *ClientData._fields, "view_weights", "scores", "key"}
    assert not private & {*Upload._fields, *CohortSum._fields, *Broadcast._fields}
    assert Broadcast._fields == (
        "views",
        "network",
        "round",
        "operators",
        "least_squares",
        "neighbours",
    )
    assert LeastSquares._fields == ("gramian", "unobserved", "penalty", "contributions")
    assert Contributions._fields == ("popularity", "inverse", "equations")


def test_the_servers_code_takes_the_cohorts_sum_only():
    assert CohortSum._fields == ("gradient", "shared", "weight", "loss", "squares")
    for module in (aggregate, operators):
        source = inspect.getsource(module)
        for word in ("Upload", "ClientState", "ClientData", "fedvlr_jax.client"):
            assert word not in source


def test_one_upload_tells_positives_from_negatives(one_upload):
    history, state, weights, upload = one_upload
    items, gradient = rows_of(upload)
    # dL/dF[i] = delta_i q, q = outer(w, theta), and on history rows also one vector that comes
    # through the router: q is a public direction as soon as one negative row is seen.
    q = np.outer(weights, state.head["theta"]).ravel()
    along = gradient @ q / (q @ q)
    off = np.linalg.norm(gradient - along[:, None] * q, axis=1) / np.linalg.norm(gradient, axis=1)
    is_history = np.isin(items, history)
    assert is_history[:8].all()
    assert not is_history[8:].any()
    np.testing.assert_array_equal(off > 1e-4, is_history)
    assert (along[8:] > 0).all()
    # Without a router nothing but the sign of delta is left, and it is enough.
    shared = gradient[0] - (gradient[0] @ q / (q @ q)) * q
    rest = (gradient[:8] - shared) - ((gradient[:8] - shared) @ q / (q @ q))[:, None] * q
    np.testing.assert_allclose(rest, 0, atol=1e-5)


def test_the_sign_alone_tells_positives_from_negatives_without_a_router():
    model = ClientModel(backbones.get("fedavg"), 1, DIM, routed=False)
    training = LocalTraining(model, epochs=1, negatives=2, optimizer="sgd")
    rng = np.random.default_rng(5)
    history = jnp.array(sorted(rng.permutation(N_ITEMS)[:6].tolist()), jnp.int32)
    broadcast = sent(rng.standard_normal((N_ITEMS, 1, DIM)))
    state = new_state(model)
    data = ClientData(jnp.int32(0), history)
    way = choose(training)
    _, upload = whole_round(way, training, broadcast, state, data, RATES, jax.random.key(2))
    sign = np.sign(rows_of(upload)[1] @ state.head["theta"])
    np.testing.assert_array_equal(sign, [-1] * 6 + [1] * 12)


def test_one_upload_tells_view_weights_and_the_heads_direction(one_upload):
    _, state, weights, upload = one_upload
    row = rows_of(upload)[1][8].reshape(
        N_VIEWS, DIM
    )  # a negative touched once: rank one over views
    left, sizes, right = np.linalg.svd(row)
    assert sizes[1] < 1e-5 * sizes[0]
    np.testing.assert_allclose(np.abs(left[:, 0]) / np.abs(left[:, 0]).sum(), weights, atol=1e-4)
    theta = np.asarray(state.head["theta"])
    cosine = abs(right[0] @ theta) / np.linalg.norm(theta)
    assert cosine == pytest.approx(1, abs=1e-4)
