"""The equations of a linear head that is solved, and their solution.

A theta = sum_{i in H} x_i with A = sum_{i in H} x_i x_i^T + c n/I sum_i x_i x_i^T + l identity:
there the gradient of least_squares.py's problem is zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.protocol import LeastSquares

_TOLERANCE = 1e-6  # of what is left of the equations, relative to their right-hand sides


class Equations(NamedTuple):
    """A client's system of equations A theta = sum of X for its head.

    `vectors` are X, the item vectors of the history, 0 at padding; `matrix` is A, `gramian` the sum
    of x x^T over all items.
    """

    vectors: Float[Array, "history width"]
    matrix: Float[Array, "width width"]
    gramian: Float[Array, "width width"]


def equations(
    model: ClientModel,
    problem: LeastSquares,
    weights: Float[Array, " views"],
    rows: Float[Array, "history views dim"],
    real: Bool[Array, " history"],
) -> Equations:
    """The equations at view weights w, from the view rows of the history."""
    vectors = real[:, None] * model.item_vectors(weights, rows)
    gramian = problem.gramian
    if model.fused:
        by_view = gramian.reshape(2 * (model.n_views, model.dim)).transpose(0, 2, 1, 3)
        pairs = jnp.outer(weights, weights).ravel()
        # All clients share the Gramian: under vmap this is one product of matrices.
        gramian = (pairs @ by_view.reshape(len(pairs), -1)).reshape(model.dim, model.dim)
    everything = problem.unobserved * real.sum()
    matrix = vectors.T @ vectors + everything * gramian + problem.penalty * jnp.eye(model.width)
    return Equations(vectors, matrix, gramian)


def solution(equations: Equations) -> Float[Array, " width"]:
    """The head theta; zero for a client without history.

    By conjugate gradients: products of matrices alone. A factorization of many small matrices is
    slow on a TPU, and LAPACK's on a CPU waits for threads that devices may need to wait for one
    another.
    """
    vectors, matrix, _ = equations
    theta, _ = jax.scipy.sparse.linalg.cg(
        lambda x: matrix @ x, vectors.sum(axis=0), tol=_TOLERANCE, maxiter=2 * len(matrix)
    )
    return theta
