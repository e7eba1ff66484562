"""A client's local training in closed form: plain SGD on a linear head and a two-layer router.

METHOD "The identity that makes it fast". With q = outer(w, theta) a sample's score is F[i] . q + b
and its row gradient delta_i q, a scalar times one vector for all samples of an epoch: a rank-one
term is all of the upload that there is to an epoch. What the router costs is in router_steps.py.

What an epoch scores comes in blocks of rows, in one of two ways that give equal results. Sparse:
the history's rows, gathered once, and the negatives', gathered in every epoch. Dense: all rows at
once, each counted as often as it is a positive or a negative, so that under vmap over clients an
epoch is a few products of matrices, without gathers or scatters.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.client import router_steps
from fedvlr_jax.client.model import ClientData, ClientState
from fedvlr_jax.client.negatives import counted
from fedvlr_jax.client.router import pool
from fedvlr_jax.client.router_steps import RouterSteps
from fedvlr_jax.client.update import (
    ClientRates,
    LocalTraining,
    LocalUpdate,
    Negatives,
    draw,
    flat,
    places,
    rows,
)
from fedvlr_jax.protocol import Broadcast, Terms, Upload


class _Block(NamedTuple):
    """Rows that an epoch scores, how often each counts, and how often as a positive.

    Without `items` they are those of all items, in order.
    """

    items: Int[Array, " rows"] | None
    rows: Float[Array, "rows stacked"]
    often: Float[Array, " rows"]
    positive: Float[Array, " rows"] | None


class _Sparse(NamedTuple):
    """Negatives and the history's rows; of every epoch so far, what their gradient is made of.

    The part of that gradient that does not go through z is the sum over epochs of
    outer(derivatives, query).
    """

    drawn: Negatives
    positives: Float[Array, "history stacked"]
    derivatives: Float[Array, "epochs history"]
    queries: Float[Array, "epochs stacked"]


class _Dense(NamedTuple):
    """Negatives, and which items the history has (1 or 0)."""

    drawn: Negatives
    held: Float[Array, " items"]


class _Work(NamedTuple):
    """Head and router between two epochs, and what is scored."""

    head: Any
    router: RouterSteps | None
    scored: _Sparse | _Dense


def applies(training: LocalTraining) -> bool:
    """Whether this client trains by plain SGD on a linear head alone."""
    backbone = training.model.backbone
    plain = backbone.linear is not None and backbone.own_rows is None
    stepped = not training.exact and training.optimizer == "sgd"
    return plain and stepped and training.mode == "accumulate"


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    key: Array,
) -> _Work:
    here = places(training, sent, data)
    if training.dense:
        scored = _dense(training, sent, data, key)
        pooled = scored.held @ flat(sent.views) / jnp.maximum(here.real.sum(), 1)
    else:
        scored = _sparse(training, sent, data, key)
        pooled = pool(rows(sent, data.history), here.real)
    router = router_steps.begin(state.router, pooled) if training.model.routed else None
    return _Work(state.head, router, scored)


def _sparse(training: LocalTraining, sent: Broadcast, data: ClientData, key: Array) -> _Sparse:
    positives = flat(rows(sent, data.history))
    derivatives = jnp.zeros((training.epochs, len(positives)))
    queries = jnp.zeros((training.epochs, positives.shape[1]))
    return _Sparse(draw(training, sent, data, key), positives, derivatives, queries)


def _dense(training: LocalTraining, sent: Broadcast, data: ClientData, key: Array) -> _Dense:
    held = counted(data.history, sent.views.shape[0])
    return _Dense(draw(training, sent, data, key), held)


def _blocks(
    training: LocalTraining, sent: Broadcast, work: _Work, data: ClientData, number: Int[Array, ""]
) -> list[_Block]:
    """What epoch `number` scores."""
    here, scored = places(training, sent, data), work.scored
    drawn = scored.drawn.of(number)
    if isinstance(scored, _Sparse):
        negatives = flat(rows(sent, drawn.items))
        real = here.real.astype(jnp.float32)
        return [
            _Block(data.history, scored.positives, real, real),
            _Block(drawn.items, negatives, drawn.weights, None),
        ]
    negative = drawn.weights
    if not training.expected or data.pool is not None:  # of some items, one as often as another
        negative = drawn.weights.max() * counted(drawn.items, len(scored.held))
    return [_Block(None, flat(sent.views), scored.held + negative, scored.held)]


def _scored(
    block: _Block, query: Float[Array, " stacked"], bias: Float[Array, ""]
) -> tuple[Float[Array, " rows"], Float[Array, ""]]:
    """The loss's derivatives by the block's scores, and its part of the loss, of samples summed."""
    scores = block.rows @ query + bias
    # A sample's loss is softplus(s) - label s, its derivative by the score sigmoid(s) - label.
    derivatives = block.often * jax.nn.sigmoid(scores)
    losses = block.often * jax.nn.softplus(scores)
    if block.positive is not None:
        derivatives, losses = derivatives - block.positive, losses - block.positive * scores
    return derivatives, losses.sum()


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
    (theta, bias), head_gradient = jax.vjp(model.backbone.linear, work.head)
    weights = work.router.weights if work.router else model.equal_weights
    query, query_gradient = jax.vjp(model.query, weights, theta)

    blocks = _blocks(training, sent, work, data, number)
    found = [_scored(block, query, bias) for block in blocks]
    derivatives = [here.share * by_score for by_score, _ in found]
    loss = here.share * sum(loss for _, loss in found)
    d_query = sum(d @ block.rows for d, block in zip(derivatives, blocks, strict=True))
    d_bias = sum(d.sum() for d in derivatives)

    d_weights, d_theta = query_gradient(d_query)
    (d_head,) = head_gradient((d_theta, d_bias))
    head = jax.tree.map(lambda p, g: p - rates.head * g, work.head, d_head)
    router = work.router and work.router.stepped(d_weights, rates.router)
    scored = work.scored
    if isinstance(scored, _Sparse):
        # The history's rows are the same in all epochs: their part is handed over at the end.
        scored = scored._replace(
            derivatives=scored.derivatives.at[number].set(derivatives[0]),
            queries=scored.queries.at[number].set(query),
        )
    direction = query.reshape(1, model.n_views, model.dim)
    gradient = Terms(blocks[-1].items, (here.weight * derivatives[-1])[None], direction)
    upload = Upload(gradient, None, jnp.zeros(()), here.weight * loss / training.epochs)
    return _Work(head, router, scored), upload


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,  # noqa: ARG001 - other ways need it
) -> tuple[ClientState, Upload]:
    here = places(training, sent, data)
    terms = _left(sent, data, work.scored)
    real = work.scored.held if terms.items is None else here.real
    parameters, terms = router_steps.finish(work.router, rates.router, terms, real)
    gradient = terms._replace(coefficients=here.weight * terms.coefficients)
    return ClientState(parameters, work.head), Upload(gradient, None, here.weight, jnp.zeros(()))


def _left(sent: Broadcast, data: ClientData, scored: _Sparse | _Dense) -> Terms:
    """What is left to hand over of the history's rows, the router's path left aside."""
    n_items, *row = sent.views.shape
    if isinstance(scored, _Sparse):
        return Terms(data.history, scored.derivatives, scored.queries.reshape(-1, *row))
    return Terms(None, jnp.zeros((0, n_items)), jnp.zeros((0, *row)))


CLOSED_FORM = LocalUpdate(_begin, _epoch, _finish)
