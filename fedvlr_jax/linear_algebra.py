"""Inverses by products of matrices and sums alone.

LAPACK's factorizations wait on a CPU for threads that several devices of one process may need to
wait for one another, and those of many small matrices are slow on a TPU. What is here waits for
nothing, so that it may stand anywhere in a round.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_BLOCK = 8  # rows; smaller blocks take longer to compile, larger ones longer to invert
_MOST_BLOCKS = 32  # of a large matrix, along its diagonal: every one is compiled


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
