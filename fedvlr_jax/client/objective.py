"""The loss of one local epoch: binary cross-entropy over a client's positives and negatives."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.backbones.base import Network
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.client.update import Places


class Samples(NamedTuple):
    """View rows of an epoch's positives (one a history place) and negatives.

    `slots` are the slots of the negatives' own vectors, None without.
    """

    positives: Float[Array, "history views dim"]
    negatives: Float[Array, "drawn views dim"]
    slots: Int[Array, " drawn"] | None


def mean_loss(
    model: ClientModel,
    here: Places,
    private: ClientState,
    network: Network,
    samples: Samples,
    number: Int[Array, ""],
) -> Float[Array, ""]:
    """METHOD "Forward": the mean loss over one epoch's positives and negatives.

    Own item vectors that train with the head take part, and so does their penalty.

    Args:
        model: the client's.
        here: the places of its history.
        private: its private parameters.
        network: what the backbone shares.
        samples: the epoch's.
        number: of rounds done.
    """
    weights = model.view_weights(private, samples.positives, here.real)
    own = model.backbone.own_rows
    penalty = jnp.zeros(len(here.real))
    if own is None or not own.with_head:
        positive = model.scores(network, private, weights, samples.positives)
        negative = model.scores(network, private, weights, samples.negatives)
    else:
        mine = own_vectors(model, private.own.vectors, len(here.real), samples.slots)
        both = samples.positives, samples.negatives
        positive, negative = (
            model.own_scores(network, private, weights, rows, vectors)
            for rows, vectors in zip(both, mine, strict=True)
        )
        if own.penalty is not None:
            terms = [
                own.penalty(model.item_vectors(weights, rows), vectors, number)
                for rows, vectors in zip(both, mine, strict=True)
            ]
            penalty = terms[0] + terms[1].reshape(len(here.real), -1).sum(axis=1)
    return here.share * jnp.where(here.real, cross_entropy(positive, negative) + penalty, 0).sum()


def tuning_loss(
    model: ClientModel,
    here: Places,
    private: ClientState,
    network: Network,
    vectors: Float[Array, "slots width"],
    slots: Int[Array, " drawn"],
) -> Float[Array, ""]:
    """The sum of the samples' losses where the client's own vectors stand for the items'."""
    mine = own_vectors(model, vectors, len(here.real), slots)
    positive, negative = (model.backbone.score(network, private.head, x) for x in mine)
    return jnp.where(here.real, cross_entropy(positive, negative), 0).sum()


def own_vectors(
    model: ClientModel,
    vectors: Float[Array, "slots width"],
    n_places: int,
    slots: Int[Array, " drawn"],
) -> tuple[Float[Array, "history width"], Float[Array, "drawn width"]]:
    """Own vectors of an epoch's positives, which come after the pool, and of its negatives."""
    return vectors[model.pool : model.pool + n_places], vectors[slots]


def cross_entropy(
    positive: Float[Array, " history"], negative: Float[Array, " drawn"]
) -> Float[Array, " history"]:
    """The losses of every history place's positive and negatives, added up."""
    # log(1 + exp(-s)) for label 1, log(1 + exp(s)) for label 0.
    negative = jax.nn.softplus(negative).reshape(len(positive), -1)
    return jax.nn.softplus(-positive) + negative.sum(axis=1)
