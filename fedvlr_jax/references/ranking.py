"""Ranks of held-out items from a table of scores, by the rules of METHOD "Evaluation"."""

import numpy as np
from jaxtyping import Float, Int

from fedvlr_jax.data.types import Interactions


def held_out_ranks(
    scores: Float[np.ndarray, "clients items"],
    data: Interactions,
    target: Int[np.ndarray, " clients"],
    seed: int,
) -> Int[np.ndarray, " clients"]:
    """Rank (0 = first) of each client's item in `target` among all but its train items.

    Ties are broken by a random order that is another one for every client.

    Args:
        scores: of every client and item.
        data: all clients' interactions, in one process.
        target: held-out items, -1 for clients without one, whose rank is -1, too.
        seed: of the order of ties.
    """
    candidates = scores.copy()
    candidates[np.repeat(np.arange(data.n_clients), data.lengths), data.items] = -np.inf
    own = np.where(target >= 0, target, 0)[:, None]
    order = np.random.default_rng(seed).random(scores.shape)
    score, place = (np.take_along_axis(x, own, axis=1) for x in (candidates, order))
    before = (candidates > score) | ((candidates == score) & (order < place))
    return np.where(target >= 0, before.sum(axis=1), -1)


def train_matrix(data: Interactions) -> Float[np.ndarray, "clients items"]:
    """1 where a client has an item in its train split, else 0."""
    matrix = np.zeros((data.n_clients, data.n_items), np.float32)
    matrix[np.repeat(np.arange(data.n_clients), data.lengths), data.items] = 1
    return matrix
