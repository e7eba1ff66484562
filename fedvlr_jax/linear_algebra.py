"""Inverses and singular vectors by products of matrices and sums alone.

LAPACK's factorizations of many matrices wait on a CPU for threads that may all wait: for one
another, or for another device of the process. On two cores they sometimes never return. On a TPU
those of many small matrices are slow. What is here waits for nothing, so that it may stand
anywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_BLOCK = 8  # rows; smaller blocks take longer to compile, larger ones longer to invert
_MOST_BLOCKS = 32  # of a large matrix, along its diagonal: every one is compiled
_MOST_SWEEPS = 15  # of rotations
_TOLERANCE = 1e-6  # of entries beside the diagonal, relative to those on it
_NOTHING = 1e-5  # of the largest singular value; what is smaller is rounding errors


@jax.custom_vjp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a symmetric positive definite matrix, block by block.

    Of small matrices, many at a time, it is faster than LAPACK's on a CPU.
    """
    return _by_blocks(matrix, max(_BLOCK, len(matrix) // _MOST_BLOCKS))


def _by_blocks(matrix: Float[Array, "n n"], most: int) -> Float[Array, "n n"]:
    """The same, from blocks with `most` rows at most."""
    size = len(matrix)
    if size <= most:
        return _swept(matrix)
    half = size // 2
    corner, side, rest = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    first = _by_blocks(corner, most)
    reached = first @ side
    second = _by_blocks(rest - side.T @ reached, most)  # of the Schur complement
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


def left_singular(
    z: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows columns"], Float[Array, " columns"]]:
    """Left singular vectors and singular values of a tall matrix, the largest first.

    They are those of z W, W being the eigenvectors of z^T z, whose columns are orthogonal. A vector
    whose value is nothing beside the largest one is 0, and so is the value.
    """
    n_columns = z.shape[1]
    z = jnp.pad(z, ((0, 0), (0, n_columns % 2)))
    z = z @ _eigenvectors(z.T @ z)
    values = jnp.linalg.norm(z, axis=0)
    order = jnp.argsort(-values)[:n_columns]
    z, values = z[:, order], values[order]
    values = jnp.where(values > _NOTHING * values[0], values, 0)
    vectors = z / jnp.where(values > 0, values, jnp.inf)
    # One step of Newton's on what rounding has left of products between vectors.
    return 1.5 * vectors - 0.5 * vectors @ (vectors.T @ vectors), values


def _eigenvectors(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Eigenvectors of a symmetric matrix with an even n, as columns in no order.

    Jacobi's method with n/2 rotations at a time: row k of the first half is paired with row k of
    the second, and after every rotation all rows but the first take the next seat, as in a
    tournament of everybody against everybody (Brent and Luk 1985).
    """
    n, half = len(matrix), len(matrix) // 2
    seats = np.r_[0, half, 1 : half - 1, half + 1 : n, half - 1][:n]

    def rotated(_: Int[Array, ""], both: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, vectors = both
        p, q = jnp.split(jnp.diagonal(matrix), 2)
        beside = jnp.diagonal(matrix[:half, half:])
        # The smaller angle of the two that make `beside` 0 (Golub and Van Loan, 8.5.2).
        ratio = (q - p) / jnp.where(beside == 0, 1, 2 * beside)
        tangent = jnp.where(ratio >= 0, 1, -1) / (jnp.abs(ratio) + jnp.sqrt(1 + ratio * ratio))
        tangent = jnp.where(beside == 0, 0, tangent)
        cosine = jax.lax.rsqrt(1 + tangent * tangent)[:, None]
        sine = tangent[:, None] * cosine

        def turned(rows: Array) -> Array:
            top, bottom = jnp.split(rows, 2)
            return jnp.concatenate([cosine * top - sine * bottom, sine * top + cosine * bottom])[
                seats
            ]

        return turned(turned(matrix).T), turned(vectors)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        sweeps, matrix, _ = carry
        scale = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
        beside = jnp.abs(matrix) * (1 - jnp.eye(n)) > _TOLERANCE * jnp.outer(scale, scale)
        return (sweeps < _MOST_SWEEPS) & beside.any()

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        sweeps, *both = carry
        return sweeps + 1, *jax.lax.fori_loop(0, n - 1, rotated, tuple(both))

    start = (jnp.zeros((), jnp.int32), matrix, jnp.eye(n))
    return jax.lax.while_loop(unfinished, sweep, start)[2].T
