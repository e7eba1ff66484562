"""Smaller uploads: some rows only, few bits a number, and what that loses kept for the next round.

A client adds what it has not sent before to its upload, keeps the rows of items with the largest
norms, and rounds every number to one of 2^b steps from -s to s, up or down at random, so that the
mean is the number itself (Alistarh et al. 2017, QSGD, arXiv 1610.02132); s is the largest number of
a row. With error feedback (Karimireddy et al. 2019, arXiv 1901.09847) what is sent has to be nearer
to the numbers than zero is, or errors would grow from round to round: the steps are scaled by
|x|^2 / (|x|^2 + variance), which makes the mean error smallest, and costs nothing to send.

Rows that a client has not touched in a round are not sent in it, and wait. Matrices and networks,
of which all numbers are there, are cut into blocks that are treated like rows.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client.whole import rows_by_item
from fedvlr_jax.protocol import Rows, Squares, Upload

BLOCK = 256  # numbers that share a scale, where there are no rows
MOST_BITS = 8


class Codes(NamedTuple):
    """Numbers as whole steps: step k of `steps` is scale (2 k / (2^bits - 1) - 1)."""

    steps: Int[Array, "rows width"]
    scales: Float[Array, " rows"]


class Residual(NamedTuple):
    """What a client has not sent yet: of rows, by place, and of everything else, laid flat."""

    rows: Float[Array, "places width"]
    dense: Float[Array, " numbers"]


@dataclass(frozen=True)
class Compression:
    """How uploads are made smaller.

    Attributes:
        bits: of a number, 0 for 32 as they are.
        rows: most rows of items, 0 for all that are touched.
        by_history: whether uploads have the rows of the client's history, in its order.
        places: rows that a client has a residual for, 0 without error feedback: those of the
            longest history, or all items.
        width: numbers of a row.
        dense: numbers beside rows.
    """

    bits: int
    rows: int
    by_history: bool
    places: int
    width: int
    dense: int

    @property
    def has_feedback(self) -> bool:
        """Whether clients keep what they have not sent."""
        return self.places > 0

    def init(self) -> Residual | None:
        """Nothing is owed before the first round."""
        if not self.has_feedback:
            return None
        return Residual(jnp.zeros((self.places, self.width)), jnp.zeros(self.dense))


def compressed(
    how: Compression, upload: Upload, residual: Residual | None, n_items: int, key: Array
) -> tuple[Upload, Residual | None]:
    """What the server gets of one client's upload, decoded, and what the client still owes it.

    Weight and loss stay as they are.

    Args:
        how: to compress.
        upload: all parts of a client's round, joined.
        residual: of the rounds before, None without error feedback.
        n_items: number of items.
        key: of client and round.
    """
    row_key, dense_key = jax.random.split(key)
    if how.by_history:
        items, coefficients, directions = upload.gradient
        rows = jnp.einsum("tp,tvd->pvd", coefficients, directions)
    else:
        items, rows = rows_by_item(upload, n_items)
    shape, rows = rows.shape[1:], rows.reshape(len(rows), -1)
    if how.has_feedback and not how.by_history:
        rows = jnp.zeros((n_items, how.width)).at[items].add(rows, mode="drop")
        items = jnp.arange(n_items)
    touched = (items < n_items) & rows.any(axis=1)
    owed = residual.rows[: len(rows)] if how.has_feedback else 0
    rows = jnp.where(touched[:, None], rows + owed, 0)
    kept = touched & largest(rows, how.rows)
    sent = jnp.where(kept[:, None], _rounded(how, rows, row_key), 0)
    shared, in_tree = ravel_pytree(upload.shared)
    dense = jnp.concatenate([shared, _triangle(upload.squares)])
    if how.has_feedback:
        dense = dense + residual.dense
    sent_dense = _unblocked(_rounded(how, _blocked(dense), dense_key), len(dense))
    if how.has_feedback:
        left = jnp.where(touched[:, None], rows - sent, owed)
        residual = Residual(residual.rows.at[: len(rows)].set(left), dense - sent_dense)
    sent_shared, triangle = jnp.split(sent_dense, [len(shared)])
    upload = upload._replace(
        gradient=Rows(jnp.where(kept, items, n_items), sent.reshape(-1, *shape)),
        shared=in_tree(sent_shared),
        squares=None if upload.squares is None else _symmetric(triangle, how.width),
    )
    return upload, residual


def largest(rows: Float[Array, "places width"], most: int) -> Bool[Array, " places"]:
    """Which rows have the largest norms, at most so many; all for 0."""
    if not most or most >= len(rows):
        return jnp.ones(len(rows), bool)
    order = jnp.argsort(-jnp.square(rows).sum(axis=1), stable=True)
    return jnp.zeros(len(rows), bool).at[order[:most]].set(True)


def quantized(rows: Float[Array, "rows width"], bits: int, key: Array, *, shrinks: bool) -> Codes:
    """Every number as one of 2^bits steps.

    Args:
        rows: of numbers.
        bits: from 1 to `MOST_BITS`.
        key: of what is drawn.
        shrinks: whether steps are scaled for the smallest mean error, instead of for the mean.
    """
    last = 2**bits - 1
    scales = jnp.abs(rows).max(axis=1)
    place = (rows / jnp.where(scales > 0, scales, 1)[:, None] + 1) * (last / 2)
    below = jnp.clip(jnp.floor(place), 0, last - 1)
    part = place - below
    steps = below + (jax.random.uniform(key, rows.shape) < part)
    if shrinks:
        squares = jnp.square(rows).sum(axis=1)
        variance = jnp.square(2 * scales / last) * (part * (1 - part)).sum(axis=1)
        total = squares + variance
        scales = scales * squares / jnp.where(total > 0, total, 1)
    return Codes(steps.astype(jnp.int32), scales)


def decoded(codes: Codes, bits: int) -> Float[Array, "rows width"]:
    """The numbers that some codes stand for."""
    return codes.scales[:, None] * (codes.steps * (2 / (2**bits - 1)) - 1)


def _rounded(
    how: Compression, rows: Float[Array, "rows width"], key: Array
) -> Float[Array, "rows width"]:
    """The rows as the server gets them."""
    if not how.bits:
        return rows
    return decoded(quantized(rows, how.bits, key, shrinks=how.has_feedback), how.bits)


def _triangle(squares: Squares | None) -> Float[Array, " numbers"]:
    """The lower triangle of the matrix, row by row; nothing without one."""
    if squares is None:
        return jnp.zeros(0)
    matrix = (squares.coefficients[:, None] * squares.directions).T @ squares.directions
    return matrix[jnp.tril_indices(len(matrix))]


def _symmetric(triangle: Float[Array, " numbers"], size: int) -> Float[Array, "size size"]:
    """The matrix of a lower triangle."""
    lower = jnp.zeros((size, size)).at[jnp.tril_indices(size)].set(triangle)
    return lower + jnp.tril(lower, -1).T


def _blocked(numbers: Float[Array, " numbers"]) -> Float[Array, "blocks block"]:
    """Numbers in blocks, the last one filled up with zeros."""
    blocks = math.ceil(len(numbers) / BLOCK)
    return jnp.pad(numbers, (0, blocks * BLOCK - len(numbers))).reshape(blocks, BLOCK)


def _unblocked(blocks: Float[Array, "blocks block"], size: int) -> Float[Array, " numbers"]:
    return blocks.ravel()[:size]
