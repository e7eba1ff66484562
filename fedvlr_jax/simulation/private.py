"""Where a device finds clients' private states: among everybody's, or among those brought to it.

Training and evaluation read and write the states of a chunk of clients by row; both kinds of
holder know how.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.mesh import BY_CLIENT, EVERYWHERE

# Values of `Slab.source` below every row of the wave before.
STORED, INITIAL = -1, -2


def initial_private(model: ClientModel, key: keys.Words, client: Int[Array, ""]) -> ClientState:
    """A client's private state before its first round; it depends on the key and the id only."""
    return model.init(keys.stream(key, keys.PRIVATE), _head_key(key, client))


def common_router(model: ClientModel, key: keys.Words) -> Any:
    """The router that every client starts from, None for a model without one."""
    return model.init_router(keys.stream(key, keys.PRIVATE))


def _head_key(key: keys.Words, client: Int[Array, ""]) -> Array:
    return jax.random.fold_in(keys.stream(key, keys.PRIVATE), jnp.maximum(client, 0))


class Resident(NamedTuple):
    """Every client's state, stacked by population row."""

    states: ClientState

    def spec(self) -> Any:
        """How its arrays lie on the devices."""
        return BY_CLIENT

    def read(
        self,
        model: ClientModel,  # noqa: ARG002 - a slab needs it
        rows: Int[Array, " chunk"],
        data: ClientData,  # noqa: ARG002
    ) -> ClientState:
        """The stacked states of the clients in `rows`; of some client past the last row."""
        return jax.tree.map(lambda x: x.at[rows].get(mode="clip"), self.states)

    def write(self, rows: Int[Array, " chunk"], states: ClientState) -> "Resident":
        """With the states of the clients in `rows` replaced; rows past the last are dropped."""
        return Resident(
            jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), self.states, states)
        )


class Slab(NamedTuple):
    """The states of one wave of clients, laid flat, and where each is to be found.

    `source` of a row is its client's row in the wave before, on the same device (`recent`); or
    `STORED`: row r of `stored`; or `INITIAL`: the client has never taken part. What is written
    goes to `after`, None where nothing is. `key` and `router` make initial states.
    """

    source: Int[Array, " rows"]
    stored: Float[Array, "rows numbers"]
    recent: Float[Array, "rows numbers"]
    after: Float[Array, "rows numbers"] | None
    key: keys.Words
    router: Any

    def spec(self) -> "Slab":
        """How its arrays lie on the devices."""
        return Slab(*[BY_CLIENT] * 4, EVERYWHERE, EVERYWHERE)

    def read(self, model: ClientModel, rows: Int[Array, " chunk"], data: ClientData) -> ClientState:
        """The stacked states of the clients in `rows`, whose data is `data`."""
        source = self.source.at[rows].get(mode="fill", fill_value=INITIAL)
        recent = self.recent.at[jnp.maximum(source, 0)].get(mode="clip")
        stored = self.stored.at[rows].get(mode="clip")
        flat = jnp.where(source[:, None] >= 0, recent, stored)
        found = jax.vmap(unflatten(model))(flat)

        def chosen(initial: Array, found: Array) -> Array:
            fresh = jnp.expand_dims(source == INITIAL, range(1, found.ndim))
            return jnp.where(fresh, initial, found)

        heads = jax.vmap(lambda client: model.init_head(_head_key(self.key, client)))(data.client)
        return ClientState(
            router=jax.tree.map(chosen, self.router, found.router),
            head=jax.tree.map(chosen, heads, found.head),
            own=jax.tree.map(chosen, model.init_own(), found.own),
        )

    def write(self, rows: Int[Array, " chunk"], states: ClientState) -> "Slab":
        """With the states of the clients in `rows` replaced; rows past the last are dropped."""
        flat = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
        return self._replace(after=self.after.at[rows].set(flat, mode="drop"))


Private = Resident | Slab


def unflatten(model: ClientModel) -> Callable[[Float[Array, " numbers"]], ClientState]:
    """The function that gives a flat state its structure back."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model.initial_shapes)
    return ravel_pytree(zeros)[1]
