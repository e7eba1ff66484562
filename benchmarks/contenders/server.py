"""The server of the contenders written in JAX: views out, the clients' mean gradient in."""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from benchmarks.workload import World
from fedvlr_jax.fusion.operators import Features, Fusion
from fedvlr_jax.server.aggregate import ServerState


class Server(NamedTuple):
    """The fusion operators, the features they fuse and the optimizer."""

    fusion: Fusion
    features: Features
    optimizer: optax.GradientTransformation

    def views(self, params: Any) -> Float[Array, "items views dim"]:
        """The views of every item."""
        return self.fusion.apply(params.fusion, self.features)

    def step(self, state: ServerState, mean: Float[Array, "items views dim"]) -> ServerState:
        """One optimizer step on the mean gradient of the views."""
        _, pull_back = jax.vjp(self.views, state.params)
        updates, optimizer = self.optimizer.update(
            pull_back(mean)[0], state.optimizer, state.params
        )
        return ServerState(optax.apply_updates(state.params, updates), optimizer)


def create(world: World, params: Any) -> tuple[Server, ServerState]:
    """The workload's server, and its state with `params` before the first round."""
    method = world.config.method
    optimizer = getattr(optax, method.server_optimizer)(method.server_lr)
    server = Server(world.simulation.federation.server.fusion, world.simulation.features, optimizer)
    return server, ServerState(params, optimizer.init(params))
