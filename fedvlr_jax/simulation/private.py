"""Clients' private states on a device: an array with a row for each, read and written by row.

A state has its structure (`ClientState`) inside a chunk of clients only; everywhere else it is the
row that client/flat.py lays out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.backbones.base import Head
from fedvlr_jax.client.flat import flatten, unflatten, with_heads
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.simulation import keys


class Private(NamedTuple):
    """The states of the clients that the devices have: of all, or of one wave of them.

    None where a round does not need them: then there is nothing to read and nothing to write.
    """

    states: Float[Array, "rows numbers"] | None

    def read(self, model: ClientModel, rows: Int[Array, " chunk"]) -> ClientState | None:
        """The stacked states of the clients in `rows`; of some client past the last row."""
        if self.states is None:
            return None
        return stacked(model, self.states.at[rows].get(mode="clip"))

    def write(self, rows: Int[Array, " chunk"], states: ClientState | None) -> "Private":
        """With the states of the clients in `rows` replaced; rows past the last are dropped."""
        if self.states is None:
            return self
        return Private(self.states.at[rows].set(jax.vmap(flatten)(states), mode="drop"))


def all_finite(states: ClientState) -> Bool[Array, ""]:
    """Whether every number of some stacked states is finite.

    A product with zeros is NaN where one is not, and costs next to nothing beside a pass over all
    of them; `write` needs the same rows.
    """
    rows = jax.vmap(flatten)(states)
    return jnp.isfinite(rows @ jnp.zeros(rows.shape[1])).all()


def stacked(model: ClientModel, rows: Float[Array, "clients numbers"]) -> ClientState:
    """The states in some rows."""
    return jax.vmap(lambda row: unflatten(model, row))(rows)


def beginnings(
    model: ClientModel, key: keys.Words
) -> Callable[[Int[Array, " clients"]], Float[Array, "clients numbers"]]:
    """The function from ids to the rows that clients have before their first round.

    They depend on the key and the id only. All clients begin with one router, which is made once.
    """
    private_key = keys.stream(key, keys.PRIVATE)
    common = flatten(model.init(private_key, private_key))

    def head(client: Int[Array, ""]) -> Head:
        return model.init_head(jax.random.fold_in(private_key, jnp.maximum(client, 0)))

    def rows(clients: Int[Array, " clients"]) -> Float[Array, "clients numbers"]:
        # Written over a copy of the common row: joined from parts, all states were there twice.
        everybody = jnp.broadcast_to(common, (len(clients), len(common)))
        return with_heads(everybody, model, jax.vmap(head)(clients))

    return rows
