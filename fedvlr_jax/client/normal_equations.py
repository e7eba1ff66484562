"""The equations of a linear head that is solved, and their solution.

A theta = sum_{i in H} x_i with A = sum_{i in H} x_i x_i^T + c n/I sum_i x_i x_i^T + l identity:
there the gradient of least_squares.py's problem is zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.protocol import LeastSquares

_TOLERANCE = 1e-6  # of what is left of the equations, relative to their right-hand sides
_BLOCK = 8  # rows; smaller blocks take longer to compile, larger ones longer to invert


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


@jax.custom_vjp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a symmetric positive definite matrix, block by block.

    These are products of matrices alone, like `solution`, and faster than LAPACK on a CPU.
    """
    size = len(matrix)
    if size <= _BLOCK:
        return _swept(matrix)
    half = size // 2
    corner, side, rest = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    first = inverse(corner)
    reached = first @ side
    second = inverse(rest - side.T @ reached)  # of the Schur complement
    across = reached @ second
    return jnp.block([[first + across @ reached.T, -across], [-across.T, second]])


def _swept(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The same, row by row (the sweep operator of Goodnight 1979)."""
    rows = jnp.arange(len(matrix))

    def sweep(k: Int[Array, ""], matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
        row = matrix[k]
        here, pivot = rows == k, row[k]
        rest = jnp.where(here, 0, row)
        swept = jnp.where(here, -1, row) / pivot
        matrix = matrix - jnp.outer(rest, rest) / pivot
        matrix = jnp.where(here[:, None], swept, matrix)
        return jnp.where(here, swept[:, None], matrix)

    return -jax.lax.fori_loop(0, len(matrix), sweep, matrix)


def _forward(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    inverted = inverse(matrix)
    return inverted, inverted


def _backward(
    inverted: Float[Array, "n n"], slope: Float[Array, "n n"]
) -> tuple[Float[Array, "n n"]]:
    return (-inverted @ slope @ inverted,)


inverse.defvjp(_forward, _backward)
