"""A client's local training in closed form: plain SGD on a linear head and a two-layer router.

METHOD "The identity that makes it fast". With q = outer(w, theta) a sample's score is F[i] . q + b
and its row gradient delta_i q, a scalar times one vector for all samples of an epoch. The pooled
history z is constant during a round, so an epoch's step changes W1 by -lr outer(z, dh) and the
pre-activation of the router's hidden layer by -lr (z . z + 1) dh, where dh is the gradient of that
pre-activation: the epochs never touch W1. It is read once before them, and read and written once
after, with

    W1 <- W1 - lr outer(z, sum_a dh_a)
    sum_a dL_a/dz = W1 (sum_a dh_a) - lr z sum_a <sum_{a' < a} dh_a', dh_a>
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.model import ClientData, ClientState
from fedvlr_jax.client.router import pool
from fedvlr_jax.client.update import (
    ClientRates,
    Drawn,
    LocalTraining,
    LocalUpdate,
    draw,
    places,
    rows,
)
from fedvlr_jax.protocol import Broadcast, Upload


class _Router(NamedTuple):
    """A router between its local epochs; `stacked` is a view row laid flat, views*dim floats.

    `start` are its parameters before the round, of which the hidden layer stays as it is.
    `pre` is the hidden layer's pre-activation now, `moved` the sum of its gradients dh so far, and
    `crossed` the sum over epochs of <moved before the epoch, dh of the epoch>.
    """

    start: Any
    out: Any
    pooled: Float[Array, " stacked"]
    pre: Float[Array, " hidden"]
    moved: Float[Array, " hidden"]
    crossed: Float[Array, ""]


class _Work(NamedTuple):
    """Head, router, and the history's rows; of every epoch so far, what their gradient is made of.

    The part of that gradient that does not go through z is the sum over epochs of
    outer(derivatives, query).
    """

    drawn: Drawn
    head: Any
    router: _Router | None
    positives: Float[Array, "history stacked"]
    derivatives: Float[Array, "epochs history"]
    queries: Float[Array, "epochs stacked"]


def applies(training: LocalTraining) -> bool:
    """Whether this client trains by plain SGD on a linear head alone."""
    backbone = training.model.backbone
    plain = backbone.linear is not None and backbone.own_rows is None
    return plain and training.optimizer == "sgd" and training.mode == "accumulate"


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    key: Array,
) -> _Work:
    positives = rows(sent, data.history)
    router = None
    if training.model.routed:
        pooled = pool(positives, places(training, sent, data).real)
        hidden = state.router["params"]["hidden"]
        pre = pooled @ hidden["kernel"] + hidden["bias"]
        out = state.router["params"]["out"]
        router = _Router(state.router, out, pooled, pre, jnp.zeros_like(pre), jnp.zeros(()))
    positives = positives.reshape(len(data.history), -1)
    drawn = draw(training, sent, data, key)
    derivatives = jnp.zeros((training.epochs, len(positives)))
    queries = jnp.zeros((training.epochs, positives.shape[1]))
    return _Work(drawn, state.head, router, positives, derivatives, queries)


def _epoch(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    number: Int[Array, ""],
) -> tuple[_Work, Upload]:
    model = training.model
    here = places(training, sent, data)
    drawn = work.drawn.of(number).items
    negatives = rows(sent, drawn).reshape(len(drawn), -1)

    (theta, bias), head_gradient = jax.vjp(model.backbone.linear, work.head)
    hidden, weights = _view_weights(training, work.router)
    query, query_gradient = jax.vjp(model.query, weights, theta)
    positive = work.positives @ query + bias
    negative = negatives @ query + bias
    drawn_for_real = jnp.repeat(here.real, training.negatives)
    # The loss's derivative by a score is sigmoid(s) - label.
    d_positive = jnp.where(here.real, -here.share * jax.nn.sigmoid(-positive), 0)
    d_negative = jnp.where(drawn_for_real, here.share * jax.nn.sigmoid(negative), 0)
    loss = here.share * (
        jnp.where(here.real, jax.nn.softplus(-positive), 0).sum()
        + jnp.where(drawn_for_real, jax.nn.softplus(negative), 0).sum()
    )

    d_weights, d_theta = query_gradient(d_positive @ work.positives + d_negative @ negatives)
    d_bias = d_positive.sum() + d_negative.sum()
    (d_head,) = head_gradient((d_theta, d_bias))
    head = jax.tree.map(lambda p, g: p - rates.head * g, work.head, d_head)
    router = work.router and _stepped(work.router, hidden, weights, d_weights, rates.router)
    upload = Upload(
        items=drawn,
        gradient=_view_rows((here.weight * d_negative)[:, None] * query, model.dim),
        shared=None,
        weight=jnp.zeros(()),
        loss=here.weight * loss / training.epochs,
    )
    derivatives = work.derivatives.at[number].set(d_positive)
    queries = work.queries.at[number].set(query)
    return _Work(work.drawn, head, router, work.positives, derivatives, queries), upload


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,  # noqa: ARG001 - other ways need it
) -> tuple[ClientState, Upload]:
    here = places(training, sent, data)
    router, gradient = work.router, work.derivatives.T @ work.queries
    parameters = None
    if router is not None:
        hidden = router.start["params"]["hidden"]
        d_pooled = hidden["kernel"] @ router.moved - rates.router * router.crossed * router.pooled
        # z is the mean over the history's real rows.
        n_train = jnp.maximum(here.real.sum(), 1)
        gradient = gradient + jnp.where(here.real[:, None], d_pooled / n_train, 0)
        stepped = {
            "kernel": hidden["kernel"] - rates.router * jnp.outer(router.pooled, router.moved),
            "bias": hidden["bias"] - rates.router * router.moved,
        }
        parameters = {"params": {"hidden": stepped, "out": router.out}}
    upload = Upload(
        items=data.history,
        gradient=_view_rows(here.weight * gradient, training.model.dim),
        shared=None,
        weight=here.weight,
        loss=jnp.zeros(()),
    )
    return ClientState(parameters, work.head), upload


CLOSED_FORM = LocalUpdate(_begin, _epoch, _finish)


def _view_weights(
    training: LocalTraining, router: _Router | None
) -> tuple[Float[Array, " hidden"] | None, Float[Array, " views"]]:
    """The router's hidden activations and w; without a router every view counts the same."""
    if router is None:
        return None, jnp.full(training.model.n_views, 1 / training.model.n_views)
    hidden = jax.nn.relu(router.pre)
    return hidden, jax.nn.softmax(hidden @ router.out["kernel"] + router.out["bias"])


def _stepped(
    router: _Router,
    hidden: Float[Array, " hidden"],
    weights: Float[Array, " views"],
    d_weights: Float[Array, " views"],
    rate: Float[Array, ""],
) -> _Router:
    """The router after one step, given the loss's gradient by its view weights."""
    d_logits = weights * (d_weights - weights @ d_weights)
    d_pre = jnp.where(router.pre > 0, router.out["kernel"] @ d_logits, 0)
    return _Router(
        start=router.start,
        out={
            "kernel": router.out["kernel"] - rate * jnp.outer(hidden, d_logits),
            "bias": router.out["bias"] - rate * d_logits,
        },
        pooled=router.pooled,
        pre=router.pre - rate * (router.pooled @ router.pooled + 1) * d_pre,
        moved=router.moved + d_pre,
        crossed=router.crossed + router.moved @ d_pre,
    )


def _view_rows(flat: Float[Array, "rows stacked"], dim: int) -> Float[Array, "rows views dim"]:
    return flat.reshape(len(flat), -1, dim)
