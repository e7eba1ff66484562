"""A client's local training by automatic differentiation: any head, router and optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedvlr_jax.client.model import ClientData, ClientState
from fedvlr_jax.client.update import (
    ClientRates,
    LocalTraining,
    LocalUpdate,
    Places,
    draw,
    places,
    rows,
    scaled,
)
from fedvlr_jax.protocol import Broadcast, Upload


class _Work(NamedTuple):
    """Private parameters, the optimizer's state, and the history's rows with their gradient."""

    private: ClientState
    optimizer: optax.OptState
    positives: Float[Array, "history views dim"]
    gradient: Float[Array, "history views dim"]


def _begin(training: LocalTraining, sent: Broadcast, state: ClientState, data: ClientData) -> _Work:
    positives = rows(sent, data.history)
    return _Work(state, _optimizer(training).init(state), positives, jnp.zeros_like(positives))


def _epoch(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,
) -> tuple[_Work, Upload]:
    here = places(training, sent, data)
    drawn = draw(training, sent, data, key)

    def loss(
        private: ClientState,
        positives: Float[Array, "history views dim"],
        negatives: Float[Array, "drawn views dim"],
    ) -> Float[Array, ""]:
        return _mean_loss(training, here, private, positives, negatives)

    value, (g_private, g_positive, g_negative) = jax.value_and_grad(loss, argnums=(0, 1, 2))(
        work.private, work.positives, rows(sent, drawn)
    )
    updates, state = _optimizer(training).update(g_private, work.optimizer, work.private)
    private = optax.apply_updates(work.private, scaled(updates, rates))
    work = _Work(private, state, work.positives, work.gradient + g_positive)
    part = here.weight * value / training.epochs
    return work, Upload(drawn, here.weight * g_negative, jnp.zeros(()), part)


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,  # noqa: ARG001 - the closed form needs them here
) -> tuple[ClientState, Upload]:
    weight = places(training, sent, data).weight
    return work.private, Upload(data.history, weight * work.gradient, weight, jnp.zeros(()))


AUTODIFF = LocalUpdate(_begin, _epoch, _finish)


def _mean_loss(
    training: LocalTraining,
    here: Places,
    private: ClientState,
    positives: Float[Array, "history views dim"],
    negatives: Float[Array, "drawn views dim"],
) -> Float[Array, ""]:
    """Binary cross-entropy, the mean over one epoch's positives and negatives."""
    model = training.model
    weights = model.view_weights(private, positives, here.real)
    positive = model.scores(private, weights, positives)
    negative = model.scores(private, weights, negatives).reshape(len(here.real), -1)
    # log(1 + exp(-s)) for label 1, log(1 + exp(s)) for label 0.
    per_place = jax.nn.softplus(-positive) + jax.nn.softplus(negative).sum(axis=1)
    return here.share * jnp.where(here.real, per_place, 0).sum()


def _optimizer(training: LocalTraining) -> optax.GradientTransformation:
    return getattr(optax, training.optimizer)(learning_rate=1.0)
