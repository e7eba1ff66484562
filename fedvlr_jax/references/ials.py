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
import numpy as np
from jaxtyping import Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.data.types import Interactions

_SPREAD = 0.1  # of an initial item's whole vector
_NARROWEST = 8  # pairs of a row, padding included
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 512, 1 << 14  # of the systems solved together: bounds memory

# Some rows (rows), and the columns that each has (rows, width), empty places at the end.
Batch = tuple[Int[np.ndarray, " _"], Int[np.ndarray, "_ _"]]


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
    sides = (
        _batches(clients, data.items, data.n_clients, data.n_items),
        _batches(data.items[by_item], clients[by_item], data.n_items, data.n_clients),
    )
    with numerics.as_written():
        drawn = np.asarray(jax.random.normal(jax.random.key(seed), (data.n_items, dim)))
    items = np.float32(_SPREAD / np.sqrt(dim)) * drawn
    while True:
        found = _solved(data.n_clients, items, sides[0], unobserved, penalty)
        items = _solved(data.n_items, found, sides[1], unobserved, penalty)
        yield found @ items.T


def _batches(
    rows: Int[np.ndarray, " pairs"],
    columns: Int[np.ndarray, " pairs"],
    n_rows: int,
    n_columns: int,
) -> list[Batch]:
    """The rows that have columns, those with similarly many together: then little is padding.

    Args:
        rows: of every train pair, ascending.
        columns: of every train pair.
        n_rows: number of rows.
        n_columns: number of columns; a place with this number in a batch is empty.
    """
    lengths = np.bincount(rows, minlength=n_rows)
    widths = np.where(lengths > 0, _NARROWEST, 0)
    while (short := lengths > widths).any():
        widths[short] *= 4
    batches = []
    for width in np.unique(widths[lengths > 0]):
        mine = np.flatnonzero(widths == width)
        at_once = min(len(mine), _ROWS_AT_ONCE, max(1, _PAIRS_AT_ONCE // width))
        held = np.full((len(mine), width), n_columns)
        held[np.arange(width) < lengths[mine][:, None]] = columns[widths[rows] == width]
        cuts = range(at_once, len(mine), at_once)
        batches += zip(np.split(mine, cuts), np.split(held, cuts), strict=True)
    return batches


def _solved(
    n_rows: int,
    others: Float[np.ndarray, "columns dim"],
    batches: list[Batch],
    unobserved: float,
    penalty: float,
) -> Float[np.ndarray, "rows dim"]:
    """The factors of all rows that are best for those of the other side; 0 for rows without any."""
    n_others, dim = others.shape
    everything = np.float32(unobserved) * others.T @ others
    padded = np.concatenate([others, np.zeros((1, dim), np.float32)])
    found = np.zeros((n_rows, dim), np.float32)
    for rows, columns in batches:
        held = padded[columns]
        count = (columns < n_others).sum(axis=1)
        strength = np.float32(penalty * (count + unobserved * n_others))
        systems = held.transpose(0, 2, 1) @ held + everything
        systems += strength[:, None, None] * np.eye(dim, dtype=np.float32)
        try:
            found[rows] = np.linalg.solve(systems, held.sum(axis=1)[..., None])[..., 0]
        except np.linalg.LinAlgError:
            found[rows] = np.nan
    return found
