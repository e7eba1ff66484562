"""The error of train items that a client leaves out, which its router follows.

A head that is solved fits the history that it has seen, and ID embeddings were made of everybody's
history. The view weights that fit a history best are therefore not those that rank other items
best: they rely on ID alone. So a client asks how well the rest of its history foretells each of its
n train items. With A theta = sum_{i in H} x_i (least_squares.py), the head without item i is

    theta_-i = theta - A^-1 x_i (1 - s_i) / (1 - h_i),   s_i = theta . x_i,   h_i = x_i . A^-1 x_i

as in leave-one-out cross-validation of ridge regression (Allen 1974), and the error is

    1/n sum_{i in H} (1 - theta_-i . x'_i)^2 + c/I sum_i (theta . x_i)^2

where x'_i is the item's vector without what the client itself has added to it (`without_own`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.client.normal_equations import equations, solution
from fedvlr_jax.linear_algebra import inverse
from fedvlr_jax.protocol import Contributions, LeastSquares, OwnEquations


def error(
    model: ClientModel,
    problem: LeastSquares,
    weights: Float[Array, " views"],
    rows: Float[Array, "history views dim"],
    others: Float[Array, "history views dim"],
    real: Bool[Array, " history"],
) -> tuple[Float[Array, ""], Float[Array, " width"]]:
    """The error above at view weights w, and theta.

    Where no item would be left the error is the same for all w.

    Args:
        model: with a linear head and fused views.
        problem: what the server sends of it.
        weights: w_u.
        rows: view rows of the history.
        others: the same without what the client has added (`without_own`).
        real: which places are no padding.
    """
    vectors, matrix, gramian = equations(model, problem, weights, rows, real)
    reached = vectors @ inverse(matrix)
    theta = reached.sum(axis=0)
    leverage = (reached * vectors).sum(axis=1)
    without = theta - reached * ((1 - vectors @ theta) / (1 - leverage))[:, None]
    scores = (model.item_vectors(weights, others) * without).sum(axis=1)
    n_train = real.sum()
    missed = jnp.sum(real * jnp.square(1 - scores)) / jnp.maximum(n_train, 1)
    of_all = problem.unobserved * (theta @ gramian @ theta)
    return jnp.where(n_train > 1, missed + of_all, 0), theta


def without_own(
    model: ClientModel,
    problem: LeastSquares,
    rows: Float[Array, "history views dim"],
    items: Int[Array, " history"],
    real: Bool[Array, " history"],
) -> Float[Array, "history views dim"]:
    """The view rows of the history, as they were if the client did not have these items.

    Args:
        model: with a linear head and fused views.
        problem: with what the server says of the clients' part in views; where it says nothing,
            rows stay as they are.
        rows: view rows of the history.
        items: their ids.
        real: which places are no padding.
    """
    known = problem.contributions
    if known is None:
        return rows
    if known.equations is None:
        return _of_sums(known, rows, items, real)
    return jax.lax.cond(
        known.equations.strength.any(),
        lambda: _of_solutions(model, problem, known.equations, rows, items, real),
        lambda: _of_sums(known, rows, items, real),
    )


def _of_solutions(
    model: ClientModel,
    problem: LeastSquares,
    known: OwnEquations,
    rows: Float[Array, "history views dim"],
    items: Int[Array, " history"],
    real: Bool[Array, " history"],
) -> Float[Array, "history views dim"]:
    """The same where ID embeddings are solutions of their items' equations.

    Without a client's part q q^T and q, A_i D_i = b_i is (A_i - q q^T) D = b_i - q, and so

        D = D_i - (A_i - q q^T)^-1 q (1 - q . D_i)

    The server keeps no A_i for that. What is left of it is taken as s_i - 1 times the mean of all
    items' (server/alternating.py). It is closest for items of few clients, where the own part is
    large. q is the head for D alone.
    """
    query = solution(equations(model, problem, known.share, rows, real))
    own = jnp.einsum("ngd,g->nd", rows, known.share)
    strength = known.strength.at[items].get(mode="clip") - 1
    missed = jnp.where(strength > 0, (1 - own @ query) / jnp.where(strength > 0, strength, 1), 0)
    part = missed[:, None] * (known.inverse @ query)
    return rows - (known.share > 0)[:, None] * part[:, None]


def _of_sums(
    known: Contributions,
    rows: Float[Array, "history views dim"],
    items: Int[Array, " history"],
    real: Bool[Array, " history"],
) -> Float[Array, "history views dim"]:
    """The same where they are sums.

    ID embeddings of a spectral start are sums over the clients that have an item: with Y = X P^-1/4
    = U S V^T, P being the items' popularity, D = V S, and so D_i is P_i^-1/4 times the sum of these
    clients' U_u. A client finds its own U_u = S^-2 sum_{j in H} P_j^-1/4 D_j and takes it away.
    """
    popularity = known.popularity.at[items].get(mode="clip")[:, None, None]
    share = jnp.maximum(popularity, 1) ** -0.25
    own = known.inverse * (real[:, None, None] * share * rows).sum(axis=0)
    # One client fewer has the item, by whose number the sum is scaled.
    stretch = jnp.where(popularity > 1, popularity / jnp.maximum(popularity - 1, 1), 0) ** 0.25
    summed = known.inverse.any(axis=1)[:, None]
    return jnp.where(summed, stretch * (rows - share * own), rows)
