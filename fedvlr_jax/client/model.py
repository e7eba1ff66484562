"""One client's private model: its router over the views and its backbone's head."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.backbones.base import Backbone
from fedvlr_jax.client.router import Router, pool


class ClientState(NamedTuple):
    """What never leaves the device: router phi_u (None for one-view variants) and head theta_u."""

    router: Any
    head: Any


class ClientData(NamedTuple):
    """One client's id (for keys) and train items, ascending and padded with `n_items`."""

    client: Int[Array, ""]
    history: Int[Array, " history"]


@dataclass(frozen=True)
class ClientModel:
    """The shape of every client's model.

    Attributes:
        backbone: gives head, score and weight.
        n_views: number of views G.
        dim: width d.
        routed: whether a personal router weighs the views; without one all weights are 1/G.
    """

    backbone: Backbone
    n_views: int
    dim: int
    routed: bool

    @property
    def router(self) -> Router:
        """The router's module."""
        return Router(self.n_views, hidden=self.dim)

    def init_router(self, key: Array) -> Any:
        """Initial router parameters, None without a router."""
        if not self.routed:
            return None
        return self.router.init(key, jnp.zeros(self.n_views * self.dim))

    def init_head(self, key: Array) -> Any:
        """Initial parameters of the backbone's head."""
        return self.backbone.init_head(key, self.dim)

    def private_numbers(self) -> int:
        """How many floats a client's private state has."""
        key = jax.random.key(0)
        parts = jax.eval_shape(self.init_router, key), jax.eval_shape(self.init_head, key)
        return sum(leaf.size for leaf in jax.tree.leaves(parts))

    def view_weights(
        self,
        state: ClientState,
        history_rows: Float[Array, "history views dim"],
        real: Bool[Array, " history"],
    ) -> Float[Array, " views"]:
        """w_u from the view rows of the history; places that are not `real` are padding."""
        if not self.routed:
            return jnp.full(self.n_views, 1 / self.n_views)
        return self.router.apply(state.router, pool(history_rows, real))

    def scores(
        self,
        state: ClientState,
        weights: Float[Array, " views"],
        rows: Float[Array, "n views dim"],
    ) -> Float[Array, " n"]:
        """s_ui = f(sum_j w_uj F_j[i]; theta_u) for every row.

        With a linear f, sum_j w_uj F_j[i] . theta_u is taken as F[i] . outer(w_u, theta_u): under
        vmap over clients that is one matrix product over shared rows.
        """
        if self.backbone.linear is not None:
            theta, bias = self.backbone.linear(state.head)
            query = jnp.outer(weights, theta).ravel()
            return rows.reshape(rows.shape[0], -1) @ query + bias
        return self.backbone.score(state.head, jnp.einsum("ngd,g->nd", rows, weights))
