"""One vector-Jacobian product for the cohort equals every client's own backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.client.update import flat
from fedvlr_jax.fusion.operators import Features, Fusion, named
from fedvlr_jax.protocol import CohortSum
from fedvlr_jax.server import aggregate

N_ITEMS, DIM = 11, 4
NO_NOISE = aggregate.Noise(jax.random.key(0), jnp.float32(0))


# Compiled as one program each: operation by operation there would be hundreds.
broadcast = jax.jit(aggregate.broadcast, static_argnums=0)
gathered = jax.jit(aggregate.gathered, static_argnums=0)
stepped = jax.jit(aggregate.step, static_argnums=0)


def at_rate(rate, network=0.0):
    return aggregate.ServerRates(*map(jnp.float32, (rate, network, 0, 0, 0, 0, 0, 0)))


def server_and_features(views=("sum", "mlp", "gate"), optimizer="sgd", backbone="fedavg"):
    rng = np.random.default_rng(0)
    features = Features(
        *(jnp.asarray(rng.standard_normal((N_ITEMS, w)), jnp.float32) for w in (6, 5))
    )
    server = aggregate.create(
        Fusion(named(*views), N_ITEMS, DIM), optimizer, backbones.get(backbone), DIM
    )
    initial = jax.jit(aggregate.init, static_argnums=0)
    return server, features, initial(server, features, jax.random.key(1))


@pytest.mark.parametrize("again", [False, True])
def test_mean_gradient_equals_per_client_backpropagation(again):
    server, features, state = server_and_features()
    server = server._replace(again=again)
    rng = np.random.default_rng(2)
    heads = jnp.asarray(rng.standard_normal((3, 3, DIM)), jnp.float32)
    items = [rng.permutation(N_ITEMS)[: 2 + u] for u in range(3)]
    alpha = np.array([3.0, 1.0, 4.0])

    def client_loss(views, u):
        scores = jnp.einsum("ngd,gd->n", views[items[u]], heads[u])
        return jnp.log1p(jnp.exp(-scores)).mean()

    def through_the_fusion(params, u):
        return client_loss(server.fusion.apply(params.fusion, features), u)

    gradient = jax.jit(jax.grad(through_the_fusion), static_argnums=1)
    own = [gradient(state.params, u) for u in range(3)]
    expected = jax.tree.map(
        lambda *g: sum(a * x for a, x in zip(alpha, g, strict=True)) / alpha.sum(), *own
    )

    views = broadcast(server, state, features, jnp.int32(0), at_rate(0)).views
    total = CohortSum(
        gradient=sum(a * flat(jax.grad(client_loss)(views, u)) for u, a in enumerate(alpha)),
        shared=None,
        weight=jnp.float32(alpha.sum()),
        loss=jnp.float32(0),
    )
    found = aggregate.mean_gradient(gathered(server, state, features, total))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
        assert np.abs(y).max() > 0


def test_a_step_of_sgd_is_the_rate_times_the_mean_gradient():
    server, features, state = server_and_features()
    views = broadcast(server, state, features, jnp.int32(0), at_rate(0)).views
    total = CohortSum(2 * flat(jnp.ones_like(views)), None, jnp.float32(4), jnp.float32(0))
    found = gathered(server, state, features, total)
    mean = aggregate.mean_gradient(found)
    after = stepped(server, state, found, jnp.int32(0), at_rate(0.5), NO_NOISE)
    for x, y, g in zip(
        *(jax.tree.leaves(t) for t in (state.params, after.params, mean)), strict=True
    ):
        np.testing.assert_allclose(y, x - 0.5 * g, atol=1e-6)


def test_adams_rate_scales_its_step():
    server, features, state = server_and_features(optimizer="adam")
    views = broadcast(server, state, features, jnp.int32(0), at_rate(0)).views
    total = CohortSum(flat(jnp.ones_like(views)), None, jnp.float32(1), jnp.float32(0))
    found = gathered(server, state, features, total)
    after = stepped(server, state, found, jnp.int32(0), at_rate(0.03), NO_NOISE)
    mean = aggregate.mean_gradient(found)
    plain = optax.adam(0.03)
    updates, _ = plain.update(mean, plain.init(state.params), state.params)
    expected = optax.apply_updates(state.params, updates)
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_a_network_steps_at_a_rate_of_its_own():
    server, features, state = server_and_features(backbone="fedncf")
    views = broadcast(server, state, features, jnp.int32(0), at_rate(0)).views
    shared = jax.tree.map(jnp.ones_like, state.params.network)
    total = CohortSum(flat(jnp.ones_like(views)), shared, jnp.float32(2), jnp.float32(0))
    found = gathered(server, state, features, total)
    after = stepped(server, state, found, jnp.int32(0), at_rate(0.5, 0.02), NO_NOISE)
    mean = aggregate.mean_gradient(found)
    for part, rate in (("fusion", 0.5), ("network", 0.02)):
        before, now, slope = (
            jax.tree.leaves(getattr(p, part)) for p in (state.params, after.params, mean)
        )
        for x, y, g in zip(before, now, slope, strict=True):
            np.testing.assert_allclose(y, x - rate * g, atol=1e-6)


def test_fedraps_step_adds_the_slope_of_its_penalty():
    server, features, state = server_and_features()
    server = server._replace(backbone=backbones.get("fedrap"))
    views = broadcast(server, state, features, jnp.int32(0), at_rate(0)).views
    total = CohortSum(flat(jnp.zeros_like(views)), None, jnp.float32(1), jnp.float32(0))
    found = gathered(server, state, features, total)
    after = stepped(server, state, found, jnp.int32(7), at_rate(1), NO_NOISE)
    before, now = (s.params.fusion["params"]["item_embedding"] for s in (state, after))
    # b L1(D) with b = 0.01 tanh(round/10), the mean over D's entries.
    expected = 0.01 * np.tanh(0.7) * np.sign(before) / before.size
    np.testing.assert_allclose(before - now, expected, atol=1e-8)
