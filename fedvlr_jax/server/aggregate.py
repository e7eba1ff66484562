"""The server's half of a round: views out, the cohort's mean gradient in, one optimizer step.

METHOD "The identity that makes it fast": the views are constants during a round, so one
vector-Jacobian product of the operators on the cohort's mean dL/dF gives the exact mean of all
clients' gradients of D and gamma.
"""

import functools
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from fedvlr_jax.protocol import Broadcast, CohortSum
from fedvlr_jax.server.views import Features, Fusion


class ServerState(NamedTuple):
    """What the server learns: D and gamma, and its optimizer's state."""

    params: Any
    optimizer: optax.OptState


class Server(NamedTuple):
    """The server's fixed half: its model and its optimizer at learning rate 1."""

    fusion: Fusion
    optimizer: optax.GradientTransformation


@functools.cache
def create(fusion: Fusion, optimizer: str) -> Server:
    """A server with `fusion` as its model and an optax optimizer by name.

    The rate is applied to the optimizer's output, so that it can change without a compilation.
    Equal arguments give the same object, so that compiled programs are found again.
    """
    return Server(fusion, getattr(optax, optimizer)(learning_rate=1.0))


def init(server: Server, features: Features, key: Array) -> ServerState:
    """Initial parameters, drawn from `key`, and the optimizer's initial state."""
    params = server.fusion.init(key, features)
    return ServerState(params, server.optimizer.init(params))


def broadcast(server: Server, state: ServerState, features: Features) -> Broadcast:
    """The views of every item under the current parameters."""
    return Broadcast(server.fusion.apply(state.params, features))


def gradient(server: Server, state: ServerState, features: Features, total: CohortSum) -> Any:
    """The cohort's weighted mean gradient of (D, gamma), by one vector-Jacobian product."""
    _, pull_back = jax.vjp(lambda p: server.fusion.apply(p, features), state.params)
    return pull_back(total.gradient / total.weight)[0]


def step(
    server: Server,
    state: ServerState,
    features: Features,
    total: CohortSum,
    learning_rate: Float[Array, ""],
) -> ServerState:
    """One optimizer step on the mean of what the cohort uploaded (METHOD: one round, 3)."""
    mean = gradient(server, state, features, total)
    updates, optimizer = server.optimizer.update(mean, state.optimizer, state.params)
    updates = jax.tree.map(lambda u: learning_rate * u, updates)
    return ServerState(optax.apply_updates(state.params, updates), optimizer)
