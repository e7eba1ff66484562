"""The ways of a client's local training: equal where both apply, and chosen by what applies.

tests/simulation/test_federated_round.py holds both against the loop over clients.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_jax import backbones
from fedvlr_jax.client.autodiff import AUTODIFF
from fedvlr_jax.client.closed_form import CLOSED_FORM
from fedvlr_jax.client.local import LOCAL
from fedvlr_jax.client.model import ClientData, ClientModel
from fedvlr_jax.client.negatives import draw_pool
from fedvlr_jax.client.update import LocalTraining
from fedvlr_jax.client.ways import choose
from tests.client.alone import new_state, rates, sent, table, whole_round

N_ITEMS, DIM, WIDTH = 30, 6, 5
RATES = rates(head=0.5, router=0.3)
in_one = jax.jit(whole_round, static_argnums=(0, 1))


def training(
    n_views=3, routed=True, epochs=3, negatives=2, optimizer="sgd", fused=True, expected=False
):
    model = ClientModel(backbones.get("fedavg"), n_views, DIM, routed=routed, fused=fused)
    return LocalTraining(model, epochs, negatives, optimizer, expected=expected)


def client(rng, model, n_train):
    """A client with `n_train` train items in `WIDTH` places, at no special parameters."""
    history = np.full(WIDTH, N_ITEMS, np.int32)
    history[:n_train] = np.sort(rng.permutation(N_ITEMS)[:n_train])
    state = new_state(model)
    state = jax.tree.map(lambda x: x + 0.4 * rng.standard_normal(x.shape).astype("f4"), state)
    return state, ClientData(jnp.int32(0), jnp.asarray(history))


@settings(max_examples=10)
@given(
    n_train=st.integers(0, WIDTH),
    n_views=st.integers(1, 4),
    kind=st.sampled_from([(True, True), (False, True), (False, False)]),
    epochs=st.integers(1, 4),
    negatives=st.integers(1, 3),
    expected=st.booleans(),
    pool=st.sampled_from([0, 7]),
    seed=st.integers(0, 1000),
)
def test_the_closed_form_equals_autodiff(
    n_train, n_views, kind, epochs, negatives, expected, pool, seed
):
    routed, fused = kind
    how = training(n_views, routed, epochs, negatives, fused=fused, expected=expected)
    rng = np.random.default_rng(seed)
    state, data = client(rng, how.model, n_train)
    key = jax.random.key(seed)
    if pool:
        data = data._replace(pool=draw_pool(jax.random.key(1), data.history, N_ITEMS, pool))
    broadcast = sent(rng.standard_normal((N_ITEMS, n_views, DIM)))
    dense = dataclasses.replace(how, dense=True)
    slow_state, slow = in_one(AUTODIFF, how, broadcast, state, data, RATES, key)
    for fast_how in (how, dense):
        fast_state, fast = in_one(CLOSED_FORM, fast_how, broadcast, state, data, RATES, key)
        assert jax.tree.structure(fast_state) == jax.tree.structure(slow_state)
        for a, b in zip(jax.tree.leaves(fast_state), jax.tree.leaves(slow_state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        gradients = [table(upload, N_ITEMS) for upload in (fast, slow)]
        np.testing.assert_allclose(*gradients, atol=1e-5 * max(n_train, 1))
        assert float(fast.weight) == float(slow.weight) == n_train
        assert float(fast.loss) == pytest.approx(float(slow.loss), abs=1e-5 * max(n_train, 1))
        if n_train:
            assert np.abs(gradients[0]).max() > 1e-3, "a gradient of zeros would prove nothing"
            theta = fast_state.head["theta"]
            assert np.abs(theta - state.head["theta"]).max() > 1e-3


def test_a_client_without_history_keeps_its_state():
    how = training()
    rng = np.random.default_rng(0)
    state, data = client(rng, how.model, 0)
    broadcast = sent(rng.standard_normal((N_ITEMS, 3, DIM)))
    dense = dataclasses.replace(how, dense=True)
    for way, one in ((CLOSED_FORM, how), (CLOSED_FORM, dense), (AUTODIFF, how)):
        after, upload = in_one(way, one, broadcast, state, data, RATES, jax.random.key(0))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(a, b)
        assert float(upload.weight) == float(upload.loss) == 0
        assert not table(upload, N_ITEMS).any()


def test_the_closed_form_is_taken_where_it_applies():
    assert choose(training()) is CLOSED_FORM
    assert choose(training(routed=False)) is CLOSED_FORM
    assert choose(training(optimizer="adam")) is AUTODIFF
    bent = dataclasses.replace(backbones.get("fedavg"), linear=None)
    model = dataclasses.replace(training().model, backbone=bent)
    assert choose(dataclasses.replace(training(), model=model)) is AUTODIFF
    assert choose(dataclasses.replace(training(), mode="local")) is LOCAL
    for name, way in (("fcf", CLOSED_FORM), ("fedncf", AUTODIFF), ("fedrap", AUTODIFF)):
        model = dataclasses.replace(training().model, backbone=backbones.get(name))
        assert choose(dataclasses.replace(training(), model=model)) is way
