"""One vmap over all clients, in two ways: of their whole round, and of one epoch at a time."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from benchmarks.contenders import client, server
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.server.aggregate import ServerState

Result = TypeVar("Result")


class AllAtOnce(Contender):
    """A jitted round: one vmap of a client's whole local training, as one writes it first.

    The gradients of all epochs of all clients are there before they are added up.
    """

    def __init__(self, world: World) -> None:
        self._learner = client.learner(world)
        start = world.initial_state()
        self._server, self._state = server.create(world, start.server.params)
        self._private = world.private(start)
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
        private, total, loss = self._trained(views, private, histories, negatives)
        # Histories are of one length, so the weighted mean over clients is the plain one.
        return self._server.step(state, total / len(histories)), private, loss

    def _trained(
        self,
        views: Float[Array, "items views dim"],
        private: ClientState,
        histories: Int[Array, "clients history"],
        negatives: Int[Array, "epochs clients drawn"],
    ) -> tuple[ClientState, Float[Array, "items views dim"], Float[Array, ""]]:
        """All clients' private parameters, the sum of the gradients, the mean loss."""
        train = jax.vmap(self._learner.train, in_axes=(None, 0, 0, 1))
        private, samples, gradients, losses = train(views, private, histories, negatives)
        return private, jnp.zeros_like(views).at[samples].add(gradients), losses.mean()


class EpochByEpoch(AllAtOnce):
    """What a careful user writes next: a scan over epochs, and the vmap inside of it.

    Every epoch's gradients are added to the items before the next epoch needs the memory.
    """

    def _trained(
        self,
        views: Float[Array, "items views dim"],
        private: ClientState,
        histories: Int[Array, "clients history"],
        negatives: Int[Array, "epochs clients drawn"],
    ) -> tuple[ClientState, Float[Array, "items views dim"], Float[Array, ""]]:
        n_history = histories.shape[1]

        def epoch(carry: tuple[ClientState, Array], drawn: Array) -> tuple[tuple, Array]:
            private, total = carry
            samples = jnp.concatenate([histories, drawn], axis=1)
            private, gradients, losses = jax.vmap(self._learner.step, in_axes=(0, 0, None))(
                private, views[samples], n_history
            )
            return (private, total.at[samples].add(gradients)), losses.mean()

        (private, total), losses = jax.lax.scan(epoch, (private, jnp.zeros_like(views)), negatives)
        return private, total, losses.mean()


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(AllAtOnce(world))
