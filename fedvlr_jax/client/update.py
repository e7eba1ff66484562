"""One client's round, written for one client.

(Broadcast, ClientState, ClientData, key) in, (ClientState, Upload) out: step 2 of METHOD "One
round", the paper's algorithm 1 in accumulate mode.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.negatives import sample_negatives
from fedvlr_jax.protocol import Broadcast, Upload


class ClientRates(NamedTuple):
    """Learning rates of a client's two private parts; traced, so they can change freely."""

    head: Float[Array, ""]
    router: Float[Array, ""]


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains: its model, local epochs A, negatives per positive, optimizer's name."""

    model: ClientModel
    epochs: int
    negatives: int
    optimizer: str


def local_update(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    rates: ClientRates,
    key: Array,
) -> tuple[ClientState, Upload]:
    """Train one client's private parameters and accumulate its gradients of the views.

    Every local epoch draws new negatives, takes the gradients of the binary cross-entropy, steps
    router and head at once, and only accumulates the gradients of the view rows (they stay as
    sent). The optimizer's state is new in every round.

    Args:
        training: static settings.
        sent: the views.
        state: private parameters before the round.
        data: the client's train items.
        rates: learning rates.
        key: of this client in this round; epoch a draws from `fold_in(key, a)`.

    Returns:
        Private parameters after the round, and the upload with one row per train item and one per
        negative of every epoch.
    """
    model = training.model
    n_items = sent.views.shape[0]
    real = data.history < n_items
    positives = _rows(sent.views, data.history)
    optimizer = getattr(optax, training.optimizer)(learning_rate=1.0)

    def loss(
        private: ClientState,
        positives: Float[Array, "history views dim"],
        negatives: Float[Array, "drawn views dim"],
    ) -> Float[Array, ""]:
        weights = model.view_weights(private, positives, real)
        positive = model.scores(private, weights, positives)
        negative = model.scores(private, weights, negatives).reshape(len(real), -1)
        # log(1 + exp(-s)) for label 1, log(1 + exp(s)) for label 0.
        per_place = jax.nn.softplus(-positive) + jax.nn.softplus(negative).sum(axis=1)
        samples = jnp.maximum(real.sum(), 1) * (1 + training.negatives)
        return jnp.where(real, per_place, 0).sum() / samples

    def epoch(
        carry: tuple[ClientState, optax.OptState, Float[Array, "history views dim"]],
        index: Int[Array, ""],
    ) -> tuple[tuple, tuple]:
        private, opt_state, positive_gradient = carry
        drawn = sample_negatives(
            jax.random.fold_in(key, index), data.history, n_items, training.negatives
        )
        drawn = jnp.where(real[:, None], drawn, n_items).ravel()
        value, (g_private, g_positive, g_negative) = jax.value_and_grad(loss, argnums=(0, 1, 2))(
            private, positives, _rows(sent.views, drawn)
        )
        updates, opt_state = optimizer.update(g_private, opt_state, private)
        private = optax.apply_updates(private, _scaled(updates, rates))
        return (private, opt_state, positive_gradient + g_positive), (drawn, g_negative, value)

    start = (state, optimizer.init(state), jnp.zeros_like(positives))
    (state, _, positive_gradient), (drawn, g_negative, losses) = jax.lax.scan(
        epoch, start, jnp.arange(training.epochs)
    )
    upload = Upload(
        items=jnp.concatenate([data.history, drawn.ravel()]),
        gradient=jnp.concatenate([positive_gradient, g_negative.reshape(-1, *positives.shape[1:])]),
        weight=model.backbone.weight(real.sum()),
        loss=losses.mean(),
    )
    return state, upload


def _rows(
    views: Float[Array, "items views dim"], items: Int[Array, " n"]
) -> Float[Array, "n views dim"]:
    """View rows of `items`; padding reads some real row, whose gradient the loss masks to zero."""
    return views.at[items].get(mode="clip")


def _scaled(updates: ClientState, rates: ClientRates) -> ClientState:
    """The optimizer's updates (made at rate 1) times the rate of their part."""
    return ClientState(
        router=jax.tree.map(lambda u: rates.router * u, updates.router),
        head=jax.tree.map(lambda u: rates.head * u, updates.head),
    )
