"""A client's linear head in closed form: the least-squares problem of implicit feedback, solved.

With view weights w, item vectors x_i = sum_j w_j F_j[i] and n train items, theta minimizes

    1/n [ sum_{i in H} (1 - theta . x_i)^2 + c n/I sum_i (theta . x_i)^2 + l |theta|^2 ]

where c/I is `LeastSquares.unobserved` and l its `penalty`: Hu, Koren and Volinsky 2008 with a
weight of c n/I for all items, as in FCF (Ammad-ud-din et al. 2019, arXiv 1901.09888); Rendle et al.
2021 (arXiv 2110.14037) show how far it goes. The sum over all items needs no item, only the views'
Gramian, so that a client solves one system of d equations, by conjugate gradients. There is no
rate, no negative and no bias.

theta is the minimum, so the gradient of the views is that at a theta that is held. Of a history's
rows it is a number each times q = outer(w, theta), of all rows F q q^T times a number: what is
uploaded is rows of the history and one small matrix. The router follows another error, that of
items that are left out (left_out.py).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client import left_out, router_steps
from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.normal_equations import equations, solution
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
from fedvlr_jax.protocol import Broadcast, Squares, Terms, Upload


class _Work(NamedTuple):
    """The router and the last head between two epochs, and what gradients are made of so far.

    `rows` are the view rows of the history, `others` the same without what the client itself has
    added to them, None without a router. `derivatives` are the loss's by the history's scores, the
    part of all items left aside, and `queries` what scores are products with, of each epoch.
    """

    head: Any
    router: RouterSteps | None
    rows: Float[Array, "history views dim"]
    others: Float[Array, "history views dim"] | None
    derivatives: Float[Array, "epochs history"]
    queries: Float[Array, "epochs stacked"]


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
    theta = solution(equations(model, sent.least_squares, weights, history_rows, real))
    return state._replace(head=model.backbone.of_theta(theta))


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: ClientState,
    data: ClientData,
    key: Array,  # noqa: ARG001 - other ways draw negatives
) -> _Work:
    here, history_rows = places(training, sent, data), rows(sent, data.history)
    router, others = None, None
    if training.model.routed:
        router = router_steps.begin(state.router, pool(history_rows, here.real))
        others = left_out.without_own(
            training.model, sent.least_squares, history_rows, data.history, here.real
        )
    derivatives = jnp.zeros((training.epochs, len(history_rows)))
    queries = jnp.zeros((training.epochs, history_rows[0].size))
    return _Work(state.head, router, history_rows, others, derivatives, queries)


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
    router = work.router
    if router is None:
        weights = model.equal_weights
        theta = solution(equations(model, problem, weights, work.rows, here.real))
    else:
        weights = router.weights
        slope, theta = jax.grad(left_out.error, argnums=2, has_aux=True)(
            model, problem, weights, work.rows, work.others, here.real
        )
        router = router.stepped(slope, rates.router)
    query = model.query(weights, theta)

    scores = flat(work.rows) @ query
    derivatives = 2 * share * here.real * (scores - 1)
    loss = (
        share * jnp.sum(here.real * jnp.square(scores - 1))
        + problem.unobserved * (query @ problem.gramian @ query)
        + share * problem.penalty * (theta @ theta)
    )
    # Without a history there is nothing to learn from.
    there = here.real.any()
    head = jax.tree.map(
        lambda a, b: jnp.where(there, a, b), model.backbone.of_theta(theta), work.head
    )
    work = work._replace(
        head=head,
        router=router,
        derivatives=work.derivatives.at[number].set(derivatives),
        queries=work.queries.at[number].set(query),
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
    if training.by_item:
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
