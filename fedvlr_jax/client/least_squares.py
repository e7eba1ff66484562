"""A client's linear head in closed form: the least-squares problem of implicit feedback, solved.

With view weights w, item vectors x_i = sum_j w_j F_j[i] and n train items, theta minimizes

    1/n [ sum_{i in H} (1 - theta . x_i)^2 + c n/I sum_i (theta . x_i)^2 + l |theta|^2 ]

where c/I is `LeastSquares.unobserved` and l its `penalty`: Hu, Koren and Volinsky 2008 with a
weight of c n/I for all items, as in FCF (Ammad-ud-din et al. 2019, arXiv 1901.09888); Rendle et al.
2021 (arXiv 2110.14037) show how far it goes. The sum over all items needs no item, only the views'
Gramian, so that a client solves one system of d equations, by conjugate gradients. There is no
rate, no negative and no bias.

theta is the minimum, so the gradients of router and views are those at a theta that is held. Of a
history's rows they are a number each times q = outer(w, theta), of all rows F q q^T times a number:
what is uploaded is rows of the history and one small matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.backbones.linear import linear_head
from fedvlr_jax.client import router_steps
from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.router import pool
from fedvlr_jax.client.router_steps import RouterSteps
from fedvlr_jax.client.update import (
    ClientRates,
    LocalTraining,
    LocalUpdate,
    flat,
    places,
    rows,
)
from fedvlr_jax.protocol import Broadcast, LeastSquares, Squares, Terms, Upload

_TOLERANCE = 1e-6  # of what is left of the equations, relative to their right-hand sides


class _Work(NamedTuple):
    """The router and the last head between two epochs, and what gradients are made of so far.

    `derivatives` are the loss's by the history's scores, the part of all items left aside, and
    `queries` what scores are products with, of each epoch.
    """

    head: Any
    router: RouterSteps | None
    positives: Float[Array, "history stacked"]
    derivatives: Float[Array, "epochs history"]
    queries: Float[Array, "epochs stacked"]


def solved(
    model: ClientModel,
    problem: LeastSquares,
    weights: Float[Array, " views"],
    positives: Float[Array, "history stacked"],
    real: Bool[Array, " history"],
) -> Float[Array, " width"]:
    """The head theta at view weights w; zero for a client without history.

    Args:
        model: with a linear head.
        problem: what the server sends of it.
        weights: w_u.
        positives: view rows of the history, laid flat.
        real: which of them are no padding.
    """
    shape = (len(positives), model.n_views, model.dim)
    vectors = real[:, None] * model.item_vectors(weights, positives.reshape(shape))
    gramian = problem.gramian
    if model.fused:
        by_view = gramian.reshape(2 * (model.n_views, model.dim)).transpose(0, 2, 1, 3)
        pairs = jnp.outer(weights, weights).ravel()
        # All clients share the Gramian: under vmap this is one product of matrices.
        gramian = (pairs @ by_view.reshape(len(pairs), -1)).reshape(model.dim, model.dim)
    everything = problem.unobserved * real.sum()
    matrix = vectors.T @ vectors + everything * gramian + problem.penalty * jnp.eye(model.width)
    # Products of matrices alone: a factorization of many small matrices is slow on a TPU, and on a
    # CPU it waits for threads that devices may need to wait for one another.
    theta, _ = jax.scipy.sparse.linalg.cg(
        lambda x: matrix @ x, vectors.sum(axis=0), tol=_TOLERANCE, maxiter=2 * model.width
    )
    return theta


def with_head(
    model: ClientModel,
    sent: Broadcast,
    state: ClientState,
    weights: Float[Array, " views"],
    history_rows: Float[Array, "history views dim"],
    real: Bool[Array, " history"],
) -> ClientState:
    """The state with the head that solves its problem for the views that were sent.

    A client needs no training for that. Where heads are trained instead, the state as it is.
    """
    if sent.least_squares is None:
        return state
    theta = solved(model, sent.least_squares, weights, flat(history_rows), real)
    return state._replace(head=linear_head(theta))


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    key: Array,  # noqa: ARG001 - other ways draw negatives
) -> _Work:
    here, history_rows = places(training, sent, data), rows(sent, data.history)
    router = None
    if training.model.routed:
        router = router_steps.begin(state.router, pool(history_rows, here.real))
    positives = flat(history_rows)
    derivatives = jnp.zeros((training.epochs, len(positives)))
    queries = jnp.zeros((training.epochs, positives.shape[1]))
    return _Work(state.head, router, positives, derivatives, queries)


def _epoch(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    number: Int[Array, ""],
) -> tuple[_Work, Upload]:
    model, problem = training.model, sent.least_squares
    here = places(training, sent, data)
    share = 1 / jnp.maximum(here.real.sum(), 1)
    weights = work.router.weights if work.router else model.equal_weights
    theta = solved(model, problem, weights, work.positives, here.real)
    query, query_gradient = jax.vjp(lambda w: model.query(w, theta), weights)

    scores = work.positives @ query
    derivatives = 2 * share * here.real * (scores - 1)
    of_all = problem.gramian @ query  # of all items, the gradient of half the sum of squares
    loss = (
        share * jnp.sum(here.real * jnp.square(scores - 1))
        + problem.unobserved * (query @ of_all)
        + share * problem.penalty * (theta @ theta)
    )
    (d_weights,) = query_gradient(derivatives @ work.positives + 2 * problem.unobserved * of_all)
    # Without a history there is nothing to learn from.
    there = here.real.any()
    head = jax.tree.map(lambda a, b: jnp.where(there, a, b), linear_head(theta), work.head)
    work = _Work(
        head,
        work.router and work.router.stepped(jnp.where(there, d_weights, 0), rates.router),
        work.positives,
        work.derivatives.at[number].set(derivatives),
        work.queries.at[number].set(query),
    )
    loss = here.weight * loss / training.epochs
    return work, Upload(None, None, jnp.zeros(()), loss)


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,  # noqa: ARG001 - other ways draw negatives
) -> tuple[ClientState, Upload]:
    here = places(training, sent, data)
    directions = work.queries.reshape(-1, *sent.views.shape[1:])
    gradient = Terms(data.history, work.derivatives, directions)
    parameters, gradient = router_steps.finish(work.router, rates.router, gradient, here.real)
    of_all = 2 * here.weight * sent.least_squares.unobserved
    squares = Squares(jnp.full(training.epochs, of_all), work.queries)
    gradient = gradient._replace(coefficients=here.weight * gradient.coefficients)
    if training.held:
        # What may change the upload has to see its rows: those of all items, one by one.
        gradient, squares = _by_item(sent, gradient, squares), None
    state = ClientState(parameters, work.head)
    return state, Upload(gradient, None, here.weight, jnp.zeros(()), squares)


def _by_item(sent: Broadcast, gradient: Terms, squares: Squares) -> Terms:
    """Both parts of a gradient as terms of all items."""
    n_items = len(sent.views)
    places = jnp.zeros((len(gradient.coefficients), n_items))
    coefficients = places.at[:, gradient.items].add(gradient.coefficients, mode="drop")
    scores = squares.coefficients[:, None] * (squares.directions @ flat(sent.views).T)
    coefficients = coefficients.at[: len(scores)].add(scores)  # the same directions, in order
    return Terms(None, coefficients, gradient.directions)


EXACT = LocalUpdate(_begin, _epoch, _finish)
