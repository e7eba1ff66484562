"""Heads that are solved: against numpy's solution, at any histories, penalties and views.

tests/simulation/test_federated_round.py holds the whole round against the loop over clients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_jax import backbones
from fedvlr_jax.aggregation import Aggregation
from fedvlr_jax.client.least_squares import EXACT
from fedvlr_jax.client.model import ClientData, ClientModel
from fedvlr_jax.client.normal_equations import equations, solution
from fedvlr_jax.client.update import LocalTraining, flat
from fedvlr_jax.protocol import LeastSquares
from tests import oracle
from tests.client.alone import new_state, rates, sent, table, whole_round

N_ITEMS, DIM, WIDTH = 30, 6, 5
RATES = rates(head=0.5, router=0.3)
in_one = jax.jit(whole_round, static_argnums=(0, 1))
_solved = jax.jit(lambda *x: solution(equations(*x)), static_argnums=0)


def model_of(n_views=3, routed=True, fused=True):
    return ClientModel(backbones.get("fedavg"), n_views, DIM, routed=routed, fused=fused)


def problem(views, unobserved, penalty):
    rows = flat(jnp.asarray(views, jnp.float32))
    per_item = jnp.float32(unobserved / N_ITEMS)
    return LeastSquares(rows.T @ rows, per_item, jnp.float32(penalty))


def padded(history):
    return jnp.asarray(np.r_[history, np.full(WIDTH - len(history), N_ITEMS)], jnp.int32)


@settings(max_examples=20)
@given(
    n_train=st.integers(0, WIDTH),
    n_views=st.integers(1, 3),
    fused=st.booleans(),
    unobserved=st.sampled_from([0.0, 0.5, 4.0, 60.0]),
    penalty=st.sampled_from([0.01, 0.3, 4.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_the_head_is_the_minimum(n_train, n_views, fused, unobserved, penalty, seed):
    rng = np.random.default_rng(seed)
    views = rng.standard_normal((N_ITEMS, n_views, DIM)).astype("f4")
    history = np.sort(rng.permutation(N_ITEMS)[:n_train])
    weights = rng.dirichlet(np.ones(n_views)).astype("f4")
    places = padded(history)
    rows = jnp.asarray(views).at[places].get(mode="clip")
    model = model_of(n_views, fused=fused)
    found = _solved(
        model, problem(views, unobserved, penalty), jnp.asarray(weights), rows, places < N_ITEMS
    )
    if not n_train:
        assert not found.any()
        return
    x = np.asarray(model.item_vectors(jnp.asarray(weights), jnp.asarray(views)))
    method = oracle.Method((), unobserved=unobserved, penalty=penalty)
    expected = oracle.solved(method, x, history)["theta"]
    np.testing.assert_allclose(x @ found, x @ np.asarray(expected), atol=2e-5)


@pytest.mark.parametrize("routed", [True, False])
def test_a_client_without_history_keeps_its_state(routed):
    training = LocalTraining(model_of(routed=routed), 3, 2, "sgd", exact=True)
    state = new_state(training.model)
    views = np.random.default_rng(0).standard_normal((N_ITEMS, 3, DIM))
    broadcast = sent(views)._replace(least_squares=problem(views, 2.0, 0.5))
    data = ClientData(jnp.int32(0), padded([]))
    after, upload = in_one(EXACT, training, broadcast, state, data, RATES, jax.random.key(0))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(upload.weight) == float(upload.loss) == 0
    assert not table(upload, N_ITEMS).any()
    assert not np.asarray(upload.squares.coefficients).any()


def test_an_upload_that_is_held_has_the_rows_of_all_items():
    model = model_of()
    views = np.random.default_rng(1).standard_normal((N_ITEMS, 3, DIM)).astype("f4")
    broadcast = sent(views)._replace(least_squares=problem(views, 2.0, 0.5))
    data, state = ClientData(jnp.int32(0), padded([2, 5, 11])), new_state(model)
    training = LocalTraining(model, 3, 2, "sgd", exact=True)
    held = LocalTraining(
        model, 3, 2, "sgd", exact=True, aggregation=Aggregation("same", of_client=lambda x: x)
    )
    _, apart = in_one(EXACT, training, broadcast, state, data, RATES, jax.random.key(0))
    _, whole = in_one(EXACT, held, broadcast, state, data, RATES, jax.random.key(0))
    assert whole.squares is None
    coefficients, directions = apart.squares
    matrix = np.einsum("t,ts,tr->sr", coefficients, directions, directions)
    both = table(apart, N_ITEMS) + flat(jnp.asarray(views)) @ matrix
    np.testing.assert_allclose(table(whole, N_ITEMS), both, atol=1e-5)
    assert np.abs(table(apart, N_ITEMS)[[2, 5, 11]]).min() > 0
    assert not np.delete(table(apart, N_ITEMS), [2, 5, 11], axis=0).any()
