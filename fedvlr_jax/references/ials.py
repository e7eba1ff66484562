"""iALS: matrix factorization over all items by alternating least squares (Hu et al. 2008).

Loss and penalty are those of Rendle et al. 2021 (arXiv 2110.14037), with their exponent 1:

    sum over train pairs of (1 - w_u . h_i)^2  +  a * sum over all pairs of (w_u . h_i)^2
        +  penalty * (sum over clients of s_u |w_u|^2  +  sum over items of s_i |h_i|^2)

where a is the weight of what is unobserved, s_u = (train items of u) + a (number of items), and s_i
likewise. With the items' factors H held fixed, w_u solves a system of d equations; the sum over all
items is the same for every client, a H^T H. Then items do the same with the clients' factors.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.data.types import Interactions

_SPREAD = 0.1  # of an initial item's whole vector
_NARROWEST = 8  # pairs of a row, padding included
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 512, 1 << 14  # of the systems solved together: bounds memory

# Some rows (batches, rows), and the columns that each has (batches, rows, width), empty places at
# the end; every width has sizes of its own.
Batches = tuple[Int[Array, "_ _"], Int[Array, "_ _ _"]]


def iterations(
    data: Interactions, *, dim: int, unobserved: float, penalty: float, seed: int
) -> Iterator[Float[np.ndarray, "clients items"]]:
    """Scores after every iteration, without end.

    Both numbers near 0 (1e-6) make systems that 32-bit numbers cannot solve: scores are NaN then.

    Args:
        data: all clients' interactions.
        dim: width of the factors, d.
        unobserved: weight a of the square of every score, above 0.
        penalty: of the squared factors, above 0.
        seed: of the items' initial factors.
    """
    clients = np.repeat(np.arange(data.n_clients), data.lengths)
    by_item = np.argsort(data.items, kind="stable")
    with numerics.as_written():
        sides = (
            _batches(clients, data.items, data.n_clients, data.n_items),
            _batches(data.items[by_item], clients[by_item], data.n_items, data.n_clients),
        )
        drawn = jax.random.normal(jax.random.key(seed), (data.n_items, dim))
        items = _SPREAD / np.sqrt(dim) * drawn
        weights = jnp.float32(unobserved), jnp.float32(penalty)
        factors = jnp.zeros((data.n_clients, dim)), items
    while True:
        with numerics.as_written():
            factors, scores = _iteration(factors, sides, weights)
            scores = np.asarray(scores)
        yield scores


def _batches(
    rows: Int[np.ndarray, " pairs"],
    columns: Int[np.ndarray, " pairs"],
    n_rows: int,
    n_columns: int,
) -> list[Batches]:
    """The rows that have columns, those with similarly many together: then little is padding.

    Args:
        rows: of every train pair, ascending.
        columns: of every train pair.
        n_rows: number of rows; a place with this number in a batch is empty.
        n_columns: number of columns; likewise.
    """
    lengths = np.bincount(rows, minlength=n_rows)
    widths = np.where(lengths > 0, _NARROWEST, 0)
    while (short := lengths > widths).any():
        widths[short] *= 4
    batches = []
    for width in np.unique(widths[lengths > 0]):
        mine = np.flatnonzero(widths == width)
        at_once = min(len(mine), _ROWS_AT_ONCE, max(1, _PAIRS_AT_ONCE // width))
        n_batches = -(-len(mine) // at_once)
        ids = np.full(n_batches * at_once, n_rows)
        ids[: len(mine)] = mine
        held = np.full((len(ids), width), n_columns)
        there = np.arange(width) < np.append(lengths, 0)[ids][:, None]
        held[there] = columns[widths[rows] == width]
        shape = n_batches, at_once
        batches.append((jnp.asarray(ids.reshape(shape)), jnp.asarray(held.reshape(*shape, width))))
    return batches


@jax.jit
def _iteration(
    factors: tuple[Float[Array, "clients dim"], Float[Array, "items dim"]],
    sides: tuple[list[Batches], list[Batches]],
    weights: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[tuple[Array, Array], Float[Array, "clients items"]]:
    clients, items = factors
    by_client, by_item = sides
    clients = _solved(len(clients), items, by_client, *weights)
    items = _solved(len(items), clients, by_item, *weights)
    return (clients, items), clients @ items.T


def _solved(
    n_rows: int,
    others: Float[Array, "columns dim"],
    batches: list[Batches],
    unobserved: Float[Array, ""],
    penalty: Float[Array, ""],
) -> Float[Array, "rows dim"]:
    """The factors of all rows that are best for those of the other side; 0 for rows without any."""
    n_others, dim = others.shape
    everything = unobserved * others.T @ others
    padded = jnp.concatenate([others, jnp.zeros((1, dim))])

    def solve(columns: Int[Array, "rows width"]) -> Float[Array, "rows dim"]:
        held = padded[columns]
        count = (columns < n_others).sum(axis=1)
        strength = penalty * (count + unobserved * n_others)
        systems = jnp.einsum("rwd,rwe->rde", held, held) + everything
        systems += strength[:, None, None] * jnp.eye(dim)
        lower = jax.scipy.linalg.cho_factor(systems, lower=True)
        return jax.scipy.linalg.cho_solve(lower, held.sum(axis=1)[..., None])[..., 0]

    found = jnp.zeros((n_rows, dim))
    for rows, columns in batches:
        found = found.at[rows].set(jax.lax.map(solve, columns), mode="drop")
    return found
