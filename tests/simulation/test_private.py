import jax
import jax.numpy as jnp
import numpy as np

from fedvlr_jax import backbones
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.private import Resident, initial_private


def model(routed=True):
    return ClientModel(backbones.get("fedavg"), 3 if routed else 1, 6, routed)


def test_clients_start_from_one_router_and_heads_of_their_own():
    key = keys.from_seed(0)
    first, second = (initial_private(model(), key, jnp.int32(client)) for client in (1, 2))
    assert isinstance(first, ClientState)
    for a, b in zip(jax.tree.leaves(first.router), jax.tree.leaves(second.router), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(first.head["theta"]) != np.asarray(second.head["theta"])).all()
    assert initial_private(model(routed=False), key, jnp.int32(1)).router is None


def test_rows_past_the_last_client_are_never_written():
    state = ClientState(None, {"theta": jnp.arange(8.0).reshape(4, 2)})
    holder = Resident(state).write(
        jnp.array([1, 4]), ClientState(None, {"theta": jnp.full((2, 2), 9.0)})
    )
    np.testing.assert_array_equal(holder.states.head["theta"], [[0, 1], [9, 9], [4, 5], [6, 7]])
