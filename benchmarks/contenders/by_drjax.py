"""DrJAX: broadcast, map_fn and reduce_sum over placed clients."""

from collections.abc import Callable
from typing import TypeVar

import drjax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from benchmarks.contenders.all_at_once import AllAtOnce
from benchmarks.stepping import Contender
from benchmarks.workload import World
from fedvlr_jax.client.model import ClientState

Result = TypeVar("Result")

# Clients that are placed at once. What reduce_sum adds up is dense over the items, 1.3 MB a client
# of the workload, so all 10,000 do not fit into memory; of 5 to 250, blocks of this size are the
# fastest.
_BLOCK = 50


class ByDrJax(AllAtOnce):
    """One jitted round: a scan over blocks of clients, every block a DrJAX program."""

    def _trained(
        self,
        views: Float[Array, "items views dim"],
        private: ClientState,
        histories: Int[Array, "clients history"],
        negatives: Int[Array, "epochs clients drawn"],
    ) -> tuple[ClientState, Float[Array, "items views dim"], Float[Array, ""]]:
        n_clients = len(histories)
        size = next(n for n in range(_BLOCK, 0, -1) if n_clients % n == 0)

        @drjax.program(placements={"clients": size})
        def of_block(views: Array, private: ClientState, histories: Array, drawn: Array) -> tuple:
            placed = (drjax.broadcast(views), private, histories, drawn)
            private, gradients, losses = drjax.map_fn(self._of_client, placed)
            return private, drjax.reduce_sum(gradients), drjax.reduce_sum(losses)

        def block(total: tuple[Array, Array], clients: tuple) -> tuple[tuple, ClientState]:
            private, gradient, loss = of_block(views, *clients)
            return (total[0] + gradient, total[1] + loss), private

        clients = (private, histories, negatives.swapaxes(0, 1))
        blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), clients)
        nothing = (jnp.zeros_like(views), jnp.zeros(()))
        (gradient, loss), private = jax.lax.scan(block, nothing, blocks)
        private = jax.tree.map(lambda x: x.reshape(n_clients, *x.shape[2:]), private)
        return private, gradient, loss / n_clients

    def _of_client(
        self, views: Array, private: ClientState, history: Array, negatives: Array
    ) -> tuple[ClientState, Array, Array]:
        private, samples, gradients, loss = self._learner.train(views, private, history, negatives)
        return private, jnp.zeros_like(views).at[samples].add(gradients), loss


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(ByDrJax(world))
