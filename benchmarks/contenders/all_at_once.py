"""One vmap over all clients: what a careful JAX user writes first."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from benchmarks.contenders import client, server
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.server.aggregate import ServerState

Result = TypeVar("Result")


class AllAtOnce(Contender):
    """A jitted round: all samples gathered, autodiff under vmap, a scan over the local epochs.

    The scan is outside of the vmap, so that every epoch's gradients are added to the items before
    the next epoch needs the memory.
    """

    def __init__(self, world: World) -> None:
        self._learner = client.learner(world)
        start = world.initial_state()
        self._server, self._state = server.create(world, start.server.params)
        self._private = start.private
        self._histories = jnp.asarray(world.histories)
        self._source = Negatives(world)

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
        n_clients, n_history = histories.shape

        def epoch(carry: tuple[ClientState, Array], drawn: Array) -> tuple[tuple, Array]:
            private, total = carry
            samples = jnp.concatenate([histories, drawn], axis=1)
            private, gradients, losses = jax.vmap(self._learner.step, in_axes=(0, 0, None))(
                private, views[samples], n_history
            )
            return (private, total.at[samples].add(gradients)), losses.mean()

        (private, total), losses = jax.lax.scan(epoch, (private, jnp.zeros_like(views)), negatives)
        # Histories are of one length, so the weighted mean over clients is the plain one.
        return self._server.step(state, total / n_clients), private, losses.mean()


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(AllAtOnce(world))
