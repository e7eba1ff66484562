"""One client's private model: its router over the views, its backbone's head and own item rows."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.backbones.base import Backbone, Network
from fedvlr_jax.client.compression import Compression, Residual
from fedvlr_jax.client.router import Router, pool


class OwnItems(NamedTuple):
    """A client's own vectors of the items in its slots, and whether it has trained yet (1 or 0).

    The first slots are its pool of negatives, the others its history.
    """

    vectors: Float[Array, "slots width"]
    trained: Float[Array, ""]


class ClientState(NamedTuple):
    """What never leaves the device: router phi_u, head theta_u, own item vectors; None without.

    `residual` is what compressed uploads have left out so far, None without error feedback.
    """

    router: Any
    head: Any
    own: OwnItems | None = None
    residual: Residual | None = None


class ClientData(NamedTuple):
    """One client's id (for keys) and train items, ascending and padded with `n_items`.

    `pool` are the items that its negatives are drawn from, padded with `n_items`, None for all.
    """

    client: Int[Array, ""]
    history: Int[Array, " history"]
    pool: Int[Array, " pool"] | None = None


@dataclass(frozen=True)
class ClientModel:
    """The shape of every client's model.

    Attributes:
        backbone: gives head, score and weight.
        n_views: number of views G.
        dim: width d.
        routed: whether a personal router weighs the views; without one all weights are 1/G.
        fused: whether views are added up into vectors of width d; otherwise they stand beside one
            another in vectors of width G d, each with its own part of the head (variant vbpr).
        pool: items in a client's pool of negatives, 0 for all.
        longest: train items of the longest history.
        compression: of uploads, None where they are sent as they are.
    """

    backbone: Backbone
    n_views: int
    dim: int
    routed: bool
    fused: bool = True
    pool: int = 0
    longest: int = 0
    compression: Compression | None = None

    @property
    def router(self) -> Router:
        """The router's module."""
        return Router(self.n_views, hidden=self.dim)

    @property
    def width(self) -> int:
        """Width of the item vectors that the head scores."""
        return self.dim if self.fused else self.n_views * self.dim

    @property
    def equal_weights(self) -> Float[Array, " views"]:
        """w_u without a router: every view counts the same."""
        return jnp.full(self.n_views, 1 / self.n_views)

    def init_router(self, key: Array) -> Any:
        """Initial router parameters, None without a router."""
        if not self.routed:
            return None
        return self.router.init(key, jnp.zeros(self.n_views * self.dim))

    def init_head(self, key: Array) -> Any:
        """Initial parameters of the backbone's head."""
        return self.backbone.init_head(key, self.width)

    def init_own(self) -> OwnItems | None:
        """Initial own item vectors, None for a backbone without them."""
        if self.backbone.own_rows is None:
            return None
        return OwnItems(jnp.zeros((self.pool + self.longest, self.width)), jnp.zeros(()))

    def init(self, router_key: Array, head_key: Array) -> ClientState:
        """A client's private state before its first round."""
        residual = self.compression.init() if self.compression else None
        return ClientState(
            self.init_router(router_key), self.init_head(head_key), self.init_own(), residual
        )

    @functools.cached_property
    def initial_shapes(self) -> ClientState:
        """Shapes of a client's private state."""
        key = jax.random.key(0)
        return jax.eval_shape(self.init, key, key)

    def private_numbers(self) -> int:
        """How many floats a client's private state has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.initial_shapes))

    def view_weights(
        self,
        state: ClientState,
        history_rows: Float[Array, "history views dim"],
        real: Bool[Array, " history"],
    ) -> Float[Array, " views"]:
        """w_u from the view rows of the history; places that are not `real` are padding."""
        if not self.routed:
            return self.equal_weights
        return self.router.apply(state.router, pool(history_rows, real))

    def item_vectors(
        self, weights: Float[Array, " views"], rows: Float[Array, "n views dim"]
    ) -> Float[Array, "n width"]:
        """The client's item vectors: sum_j w_uj F_j[i], or all F_j[i] beside one another."""
        if not self.fused:
            return rows.reshape(len(rows), -1)
        return jnp.einsum("ngd,g->nd", rows, weights)

    def query(
        self, weights: Float[Array, " views"], theta: Float[Array, " width"]
    ) -> Float[Array, " stacked"]:
        """What a linear head's scores of flattened view rows are the product with.

        sum_j w_uj F_j[i] . theta_u is F[i] . outer(w_u, theta_u): under vmap over clients that is
        one matrix product over shared rows.
        """
        return jnp.outer(weights, theta).ravel() if self.fused else theta

    def scores(
        self,
        network: Network,
        state: ClientState,
        weights: Float[Array, " views"],
        rows: Float[Array, "n views dim"],
    ) -> Float[Array, " n"]:
        """s_ui = f(x_ui; theta_u) for every row, own item vectors left aside."""
        if self.backbone.linear is not None:
            theta, bias = self.backbone.linear(state.head)
            return rows.reshape(len(rows), -1) @ self.query(weights, theta) + bias
        return self.backbone.score(network, state.head, self.item_vectors(weights, rows))

    def own_scores(
        self,
        network: Network,
        state: ClientState,
        weights: Float[Array, " views"],
        rows: Float[Array, "n views dim"],
        vectors: Float[Array, "n width"],
    ) -> Float[Array, " n"]:
        """s_ui for rows of which the client has own vectors."""
        items = self.item_vectors(weights, rows)
        combined = self.backbone.own_rows.combine(items, vectors, state.own.trained > 0)
        return self.backbone.score(network, state.head, combined)
