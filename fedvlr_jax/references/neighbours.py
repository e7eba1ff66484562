"""Nearest neighbours of items: ItemKNN by who has them, content-kNN by their features.

ItemKNN is Sarwar et al. 2001. An item that nobody has is nobody's neighbour there, but can be one
by its features: content-kNN ranks cold items, too.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from fedvlr_jax.data.types import Catalogue, Interactions
from fedvlr_jax.fusion.neighbours import directions
from fedvlr_jax.references.ranking import train_matrix

_ROWS_AT_ONCE = 1024


def scores(data: Interactions, neighbours: int) -> Float[np.ndarray, "clients items"]:
    """ItemKNN: similarity is the cosine of two items' columns of the train matrix.

    Args:
        data: all clients' interactions.
        neighbours: how many other items each item keeps; 0 keeps all.
    """
    matrix = train_matrix(data)
    length = np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    return _added(
        matrix,
        lambda rows: (matrix[:, rows].T @ matrix) / np.outer(length[rows], length),
        neighbours,
    )


def content_scores(
    data: Interactions, catalogue: Catalogue, neighbours: int
) -> Float[np.ndarray, "clients items"]:
    """content-kNN: similarity is the cosine of two items' features, added over image and text.

    Args:
        data: all clients' interactions.
        catalogue: with features of at least one kind.
        neighbours: how many other items each item keeps; 0 keeps all.
    """
    unit = directions(catalogue.image, catalogue.text)
    return _added(train_matrix(data), lambda rows: unit[rows] @ unit.T, neighbours)


def _added(
    matrix: Float[np.ndarray, "clients items"],
    similarity: Callable[[slice], Float[np.ndarray, "rows items"]],
    neighbours: int,
) -> Float[np.ndarray, "clients items"]:
    """Sum over the client's items of their similarity, where the item is among their nearest.

    Args:
        matrix: 1 where a client has an item.
        similarity: of some items to all, in an array of its own.
        neighbours: how many other items each item keeps, more where similarities are equal; 0
            keeps all.
    """
    n_items = matrix.shape[1]
    total = np.zeros_like(matrix)
    for start in range(0, n_items, _ROWS_AT_ONCE):
        here = slice(start, min(start + _ROWS_AT_ONCE, n_items))
        near = similarity(here)
        itself = np.arange(len(near)), np.arange(here.start, here.stop)
        if 0 < neighbours < n_items - 1:
            near[itself] = -np.inf
            kth = np.partition(near, -neighbours, axis=1)[:, [-neighbours]]
            near = np.where(near >= kth, near, 0)
        near[itself] = 0
        total += matrix[:, here] @ near
    return total
