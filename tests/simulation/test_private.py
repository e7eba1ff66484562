import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.client.flat import flatten
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.private import Private, all_finite, beginnings, stacked
from tests import worlds
from tests.simulation.test_federated_round import whole_round


def model(routed=True):
    return ClientModel(backbones.get("fedavg"), 3 if routed else 1, 6, routed)


def begun(model, clients, seed=0):
    return stacked(model, beginnings(model, keys.from_seed(seed))(jnp.array(clients)))


def test_clients_start_from_one_router_and_heads_of_their_own():
    states = begun(model(), [1, 2])
    assert isinstance(states, ClientState)
    for first, second in map(tuple, jax.tree.leaves(states.router)):
        np.testing.assert_array_equal(first, second)
    first, second = np.asarray(states.head["theta"])
    assert (first != second).all()
    assert begun(model(routed=False), [1]).router is None


def test_a_beginning_depends_on_key_and_id_only():
    alone = model().init(*[jax.random.fold_in(jax.random.key(0), keys.PRIVATE)] * 2)
    one, several = begun(model(), [2]), begun(model(), [0, 7, 2])
    for a, b, c in zip(*map(jax.tree.leaves, (one, several, alone)), strict=True):
        np.testing.assert_array_equal(a[0], b[2])
        assert a[0].shape == c.shape
    kernel, expected = (s.router["params"]["hidden"]["kernel"] for s in (one, alone))
    np.testing.assert_array_equal(kernel[0], expected)
    other = begun(model(), [2], seed=1)
    assert not np.any(np.asarray(one.head["theta"]) == np.asarray(other.head["theta"]))


def test_rows_past_the_last_client_are_never_written():
    first, second = begun(model(), [0, 1, 2, 3]), begun(model(), [8, 9])
    holder = Private(jax.vmap(flatten)(first)).write(jnp.array([1, 4]), second)
    expected = jax.tree.map(lambda a, b: a.at[1].set(b[0]), first, second)
    found = stacked(model(), holder.states)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    again = holder.read(model(), jnp.array([3, 1, 4]))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b[jnp.array([3, 1, 3])])


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", range(6))
def test_a_number_that_is_not_finite_is_found_wherever_it_is(part, spoilt):
    whole = jax.tree.map(lambda x: x + 3e38, begun(model(), [0, 1, 2]))
    found = jax.jit(all_finite)
    assert found(whole)
    leaves, structure = jax.tree.flatten(whole)
    leaves[part] = leaves[part].at[(1, *[-1] * (leaves[part].ndim - 1))].set(spoilt)
    assert not found(jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("settings", [{}, {"backbone": "fedrap", "negative_pool": 7}], ids=str)
def test_zeros_that_fill_rows_up_stay_zeros(settings):
    simulation = worlds.simulation(**settings)
    model, state = simulation.federation.training.model, simulation.initial_state(0)
    before = state.private
    for _ in range(2):
        state, _ = whole_round(simulation, state)
    used = model.private_numbers()
    assert used < state.private.shape[1]
    assert not np.any(before[:, used:])
    assert not np.any(state.private[:, used:])
    assert np.any(state.private[:, :used] != before[:, :used], axis=1).all()
