"""A jitted client in a Python loop over clients, the shape of FedJAX's jit backend."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks.contenders import client, server
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World
from fedvlr_jax.client.model import ClientState

Result = TypeVar("Result")


class OneByOne(Contender):
    """Every client is one call of one compiled function, all local epochs in it.

    FedJAX calls a function for every batch; one call for all epochs favours this contender. The
    sum of the gradients stays on the device and is donated from client to client.
    """

    serial = True

    def __init__(self, world: World) -> None:
        self._learner = client.learner(world)
        start = world.initial_state()
        self._server, self._state = server.create(world, start.server.params)
        stacked = jax.tree.map(np.asarray, world.private(start))
        self._private = [
            jax.device_put(jax.tree.map(lambda x, u=u: x[u], stacked))
            for u in range(world.n_clients)
        ]
        self._histories = list(jnp.asarray(world.histories))
        self._source = Negatives(world)
        self._train = jax.jit(self._one_client, donate_argnums=(1, 2))
        self._views = jax.jit(self._server.views)
        self._step = jax.jit(self._server.step)

    def compile(self) -> None:
        """Call every function once on copies: calls of compiled objects are slower than jit's."""
        views = self._views(self._state.params)
        history = self._histories[0]
        epochs, _, n_drawn = self._source.shape
        drawn = jnp.zeros((epochs, n_drawn), jnp.int32)
        total = (jnp.zeros_like(views), jnp.zeros(()))
        private = jax.tree.map(jnp.copy, self._private[0])
        jax.block_until_ready(self._train(views, total, private, history, drawn))
        jax.block_until_ready(self._step(self._state, views))

    def prepare(self, number: int) -> None:
        """One array of negatives on the device for every client."""
        by_client = np.asarray(self._source.of(number)).transpose(1, 0, 2)
        self._negatives = jax.block_until_ready([jax.device_put(drawn) for drawn in by_client])

    def round(self, clients: int) -> float:
        """The first `clients` clients, one after the other, and the server's step."""
        views = self._views(self._state.params)
        total = (jnp.zeros_like(views), jnp.zeros(()))
        for u in range(clients):
            total, self._private[u] = self._train(
                views, total, self._private[u], self._histories[u], self._negatives[u]
            )
        gradient, loss = total
        self._state = self._step(self._state, gradient / clients)
        jax.block_until_ready((self._state, self._private[clients - 1]))
        return float(jax.device_get(loss)) / clients

    def _one_client(
        self,
        views: Float[Array, "items views dim"],
        total: tuple[Array, Array],
        private: ClientState,
        history: Int[Array, " history"],
        negatives: Int[Array, "epochs drawn"],
    ) -> tuple[tuple[Array, Array], ClientState]:
        private, samples, gradients, loss = self._learner.train(views, private, history, negatives)
        return (total[0].at[samples].add(gradients), total[1] + loss), private


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(OneByOne(world))
