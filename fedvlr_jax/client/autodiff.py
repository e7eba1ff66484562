"""A client's local training by automatic differentiation: any backbone, router and optimizer.

The gradients of view rows and of the backbone's network are only accumulated: both stay as sent
(METHOD: one round, client mode `accumulate`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.model import ClientData, ClientState, OwnItems
from fedvlr_jax.client.objective import Samples, mean_loss, tuning_loss
from fedvlr_jax.client.update import (
    ClientRates,
    LocalTraining,
    LocalUpdate,
    Negatives,
    Places,
    draw,
    places,
    rows,
)
from fedvlr_jax.protocol import Broadcast, Rows, Upload


class _Work(NamedTuple):
    """Private parameters, the optimizer's state, the history's rows with their gradient."""

    drawn: Negatives
    private: ClientState
    optimizer: optax.OptState
    positives: Float[Array, "history views dim"]
    gradient: Float[Array, "history views dim"]


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    key: Array,
) -> _Work:
    positives = rows(sent, data.history)
    drawn = draw(training, sent, data, key)
    first = optimizer(training).init(state)
    return _Work(drawn, state, first, positives, jnp.zeros_like(positives))


def _epoch(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    number: Int[Array, ""],
) -> tuple[_Work, Upload]:
    here = places(training, sent, data)
    drawn = work.drawn.of(number)

    def loss(private: ClientState, network: Any, positives: Array, negatives: Array) -> Array:
        samples = Samples(positives, negatives, drawn.slots, drawn.weights)
        return mean_loss(training.model, here, private, network, samples, sent.round)

    value, (g_private, g_network, g_positive, g_negative) = jax.value_and_grad(
        loss, argnums=(0, 1, 2, 3)
    )(work.private, sent.network, work.positives, rows(sent, drawn.items))
    private, state = stepped(training, here, work.private, g_private, work.optimizer, rates)
    work = _Work(work.drawn, private, state, work.positives, work.gradient + g_positive)
    return work, Upload(
        gradient=Rows(drawn.items, here.weight * g_negative),
        shared=jax.tree.map(lambda g: here.weight * g, g_network),
        weight=jnp.zeros(()),
        loss=here.weight * value / training.epochs,
    )


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,
) -> tuple[ClientState, Upload]:
    weight = places(training, sent, data).weight
    gradient = Rows(data.history, weight * work.gradient)
    upload = Upload(gradient, None, weight, jnp.zeros(()))
    return tuned(training, sent, work.private, data, rates, key), upload


AUTODIFF = LocalUpdate(_begin, _epoch, _finish)


def optimizer(training: LocalTraining) -> optax.GradientTransformation:
    """The optimizer of everything private, at rate 1."""
    return getattr(optax, training.optimizer)(learning_rate=1.0)


def stepped(
    training: LocalTraining,
    here: Places,
    private: ClientState,
    gradient: ClientState,
    state: optax.OptState,
    rates: ClientRates,
) -> tuple[ClientState, optax.OptState]:
    """Private parameters and the optimizer's state after one step."""
    if gradient.own is not None:
        # A vector is met by a sample or two of many: its step follows the samples' sum, not mean.
        gradient = gradient._replace(
            own=jax.tree.map(lambda g: g / here.share, gradient.own),
        )
    updates, state = optimizer(training).update(gradient, state, private)
    updates = ClientState(
        router=jax.tree.map(lambda u: rates.router * u, updates.router),
        head=jax.tree.map(lambda u: rates.head * u, updates.head),
        own=jax.tree.map(lambda u: rates.own * u, updates.own),
    )
    return optax.apply_updates(private, updates), state


def tuned(
    training: LocalTraining,
    sent: Broadcast,
    private: ClientState,
    data: ClientData,
    rates: ClientRates,
    key: Array,
) -> ClientState:
    """The state after own item vectors were fine-tuned, where the backbone does so after the head.

    They start from the item vectors of this round, and take as many epochs of plain SGD as the
    head, with negatives of their own.
    """
    model, own = training.model, training.model.backbone.own_rows
    if own is None:
        return private
    here = places(training, sent, data)
    trained = jnp.where(here.real.any(), 1.0, private.own.trained)
    if own.with_head:
        return private._replace(own=private.own._replace(trained=trained))
    weights = model.view_weights(private, rows(sent, data.history), here.real)
    items = jnp.concatenate([data.pool, data.history])
    start = model.item_vectors(weights, rows(sent, items))

    drawn = draw(training, sent, data, key, first=training.epochs)

    def epoch(number: Array, vectors: Array) -> Array:
        of_epoch = drawn.of(number)
        gradient = jax.grad(lambda v: tuning_loss(model, here, private, sent.network, v, of_epoch))(
            vectors
        )
        return vectors - rates.own * gradient

    vectors = jax.lax.fori_loop(0, training.epochs, epoch, start)
    vectors = jnp.where(here.real.any(), vectors, private.own.vectors[: len(vectors)])
    everything = private.own.vectors.at[: len(vectors)].set(vectors)
    return private._replace(own=OwnItems(everything, trained))
