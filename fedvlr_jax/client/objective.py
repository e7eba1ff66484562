"""The loss of one local epoch: binary cross-entropy over a client's positives and negatives."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.backbones.base import Network
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.client.update import Negatives, Places


class Samples(NamedTuple):
    """View rows of an epoch's positives (one a history place) and negatives.

    `slots` are the slots of the negatives' own vectors, None without; `weights` how often each
    negative counts.
    """

    positives: Float[Array, "history views dim"]
    negatives: Float[Array, "drawn views dim"]
    slots: Int[Array, " drawn"] | None
    weights: Float[Array, " drawn"]


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
    both = samples.positives, samples.negatives
    if own is None or not own.with_head:
        scores = [model.scores(network, private, weights, rows) for rows in both]
        return here.share * _total(here, samples.weights, *_cross_entropies(*scores))
    mine = own_vectors(model, private.own.vectors, len(here.real), samples.slots)
    losses = _cross_entropies(
        *(
            model.own_scores(network, private, weights, rows, vectors)
            for rows, vectors in zip(both, mine, strict=True)
        )
    )
    if own.penalty is not None:
        losses = [
            loss + own.penalty(model.item_vectors(weights, rows), vectors, number)
            for loss, rows, vectors in zip(losses, both, mine, strict=True)
        ]
    return here.share * _total(here, samples.weights, *losses)


def tuning_loss(
    model: ClientModel,
    here: Places,
    private: ClientState,
    network: Network,
    vectors: Float[Array, "slots width"],
    drawn: Negatives,
) -> Float[Array, ""]:
    """The sum of the samples' losses where the client's own vectors stand for the items'."""
    mine = own_vectors(model, vectors, len(here.real), drawn.slots)
    scores = [model.backbone.score(network, private.head, x) for x in mine]
    return _total(here, drawn.weights, *_cross_entropies(*scores))


def own_vectors(
    model: ClientModel,
    vectors: Float[Array, "slots width"],
    n_places: int,
    slots: Int[Array, " drawn"],
) -> tuple[Float[Array, "history width"], Float[Array, "drawn width"]]:
    """Own vectors of an epoch's positives, which come after the pool, and of its negatives."""
    return vectors[model.pool : model.pool + n_places], vectors[slots]


def _cross_entropies(
    positive: Float[Array, " history"], negative: Float[Array, " drawn"]
) -> tuple[Float[Array, " history"], Float[Array, " drawn"]]:
    """log(1 + exp(-s)) for label 1, log(1 + exp(s)) for label 0."""
    return jax.nn.softplus(-positive), jax.nn.softplus(negative)


def _total(
    here: Places,
    weights: Float[Array, " drawn"],
    positive: Float[Array, " history"],
    negative: Float[Array, " drawn"],
) -> Float[Array, ""]:
    """The samples' losses added up, each as often as it counts."""
    return jnp.where(here.real, positive, 0).sum() + (weights * negative).sum()
