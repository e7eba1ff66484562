"""ItemKNN: an item's score is its cosine similarity to what the client has (Sarwar et al. 2001)."""

import numpy as np
from jaxtyping import Float

from fedvlr_jax.data.types import Interactions
from fedvlr_jax.references.ranking import train_matrix


def scores(data: Interactions, neighbours: int) -> Float[np.ndarray, "clients items"]:
    """Sum over the client's items of their similarity, where the item is among their nearest.

    Args:
        data: all clients' interactions.
        neighbours: how many other items each item keeps; 0 keeps all.
    """
    matrix = train_matrix(data)
    length = np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    similarity = (matrix.T @ matrix) / np.outer(length, length)
    np.fill_diagonal(similarity, 0)
    if 0 < neighbours < data.n_items - 1:
        kth = np.partition(similarity, -neighbours, axis=1)[:, [-neighbours]]
        similarity = np.where(similarity >= kth, similarity, 0)
    return (matrix @ similarity).astype(np.float32)
