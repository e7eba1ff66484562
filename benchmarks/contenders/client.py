"""One client's local training as a JAX user writes it first: autodiff, all samples gathered."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from benchmarks.workload import World
from fedvlr_jax.client.model import ClientModel, ClientState


class Rates(NamedTuple):
    """Learning rates of the head and of the router."""

    head: float
    router: float


class Learner(NamedTuple):
    """What all clients share: the model and the rates."""

    model: ClientModel
    rates: Rates

    def loss(
        self,
        private: ClientState,
        rows: Float[Array, "samples views dim"],
        n_history: int,
    ) -> Float[Array, ""]:
        """The mean binary cross-entropy over `n_history` positives and, after them, negatives."""
        history = rows[:n_history]
        weights = self.model.view_weights(private, history, jnp.ones(n_history, bool))
        scores = self.model.scores(None, private, weights, rows)
        labels = (jnp.arange(len(rows)) < n_history).astype(scores.dtype)
        return optax.sigmoid_binary_cross_entropy(scores, labels).mean()

    def step(
        self, private: ClientState, rows: Float[Array, "samples views dim"], n_history: int
    ) -> tuple[ClientState, Float[Array, "samples views dim"], Float[Array, ""]]:
        """One local epoch: private parameters after it, the rows' gradient, the loss."""
        loss, (gradient, of_rows) = jax.value_and_grad(self.loss, argnums=(0, 1))(
            private, rows, n_history
        )
        return self._stepped(private, gradient), of_rows, loss

    def train(
        self,
        views: Float[Array, "items views dim"],
        private: ClientState,
        history: Int[Array, " history"],
        negatives: Int[Array, "epochs drawn"],
    ) -> tuple[ClientState, Int[Array, "epochs samples"], Array, Float[Array, ""]]:
        """All local epochs of one client.

        Returns:
            Private parameters, the samples of every epoch, their rows' gradients, the mean loss.
        """

        def epoch(private: ClientState, drawn: Array) -> tuple[ClientState, tuple]:
            samples = jnp.concatenate([history, drawn])
            private, gradient, loss = self.step(private, views[samples], len(history))
            return private, (samples, gradient, loss)

        private, (samples, gradients, losses) = jax.lax.scan(epoch, private, negatives)
        return private, samples, gradients, losses.mean()

    def _stepped(self, private: ClientState, gradient: Any) -> ClientState:
        return ClientState(
            *(
                jax.tree.map(lambda p, g, r=rate: p - r * g, old, slope)
                for old, slope, rate in (
                    (private.router, gradient.router, self.rates.router),
                    (private.head, gradient.head, self.rates.head),
                )
            )
        )


def learner(world: World) -> Learner:
    """The workload's client."""
    method = world.config.method
    return Learner(
        world.simulation.federation.training.model, Rates(method.client_lr, method.router_lr)
    )
