"""DrJAX: broadcast, map_fn and reduce_sum over placed clients."""

from collections.abc import Callable
from typing import TypeVar

import drjax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from benchmarks.contenders import client, server
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.server.aggregate import ServerState

Result = TypeVar("Result")

# Clients that are placed at once. What reduce_sum adds up is dense over the items, 1.3 MB a client
# of the workload, so all 10,000 do not fit into memory; of 5 to 250, blocks of this size are the
# fastest.
_BLOCK = 50


class ByDrJax(Contender):
    """One jitted round: a scan over blocks of clients, every block a DrJAX program."""

    def __init__(self, world: World) -> None:
        self._learner = client.learner(world)
        start = world.initial_state()
        self._server, self._state = server.create(world, start.server.params)
        self._private = start.private
        self._histories = jnp.asarray(world.histories)
        self._source = Negatives(world)
        n_clients = world.n_clients
        self._block = next(n for n in range(_BLOCK, 0, -1) if n_clients % n == 0)

    def compile(self) -> None:
        """Compile the round ahead of time."""
        negatives = jax.ShapeDtypeStruct(self._source.shape, jnp.int32)
        self._round = (
            jax.jit(self._whole_round, donate_argnums=(0, 1))
            .lower(self._state, self._private, self._histories, negatives)
            .compile()
        )

    def prepare(self, number: int) -> None:
        """Draw the negatives and keep them on the device."""
        self._negatives = self._source.of(number)

    def round(self, clients: int) -> float:  # noqa: ARG002 - always the whole cohort
        """One round of everybody."""
        self._state, self._private, loss = jax.block_until_ready(
            self._round(self._state, self._private, self._histories, self._negatives)
        )
        return float(jax.device_get(loss))

    def _whole_round(
        self,
        state: ServerState,
        private: ClientState,
        histories: Int[Array, "clients history"],
        negatives: Int[Array, "epochs clients drawn"],
    ) -> tuple[ServerState, ClientState, Array]:
        views = self._server.views(state.params)
        n_clients = len(histories)

        @drjax.program(placements={"clients": self._block})
        def of_block(views: Array, private: ClientState, histories: Array, drawn: Array) -> tuple:
            placed = (drjax.broadcast(views), private, histories, drawn)
            private, gradients, losses = drjax.map_fn(self._of_client, placed)
            return private, drjax.reduce_sum(gradients), drjax.reduce_sum(losses)

        def block(total: tuple[Array, Array], clients: tuple) -> tuple[tuple, ClientState]:
            private, gradient, loss = of_block(views, *clients)
            return (total[0] + gradient, total[1] + loss), private

        clients = (private, histories, negatives.swapaxes(0, 1))
        blocks = jax.tree.map(lambda x: x.reshape(-1, self._block, *x.shape[1:]), clients)
        nothing = (jnp.zeros_like(views), jnp.zeros(()))
        (gradient, loss), private = jax.lax.scan(block, nothing, blocks)
        private = jax.tree.map(lambda x: x.reshape(n_clients, *x.shape[2:]), private)
        return self._server.step(state, gradient / n_clients), private, loss / n_clients

    def _of_client(
        self, views: Array, private: ClientState, history: Array, negatives: Array
    ) -> tuple[ClientState, Array, Array]:
        private, samples, gradients, loss = self._learner.train(views, private, history, negatives)
        return private, jnp.zeros_like(views).at[samples].add(gradients), loss


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(ByDrJax(world))
