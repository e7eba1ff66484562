"""Split clients into members, who train, and newcomers, who join after training."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from fedvlr_jax.data.types import Dataset, Interactions, Planted
from fedvlr_jax.errors import UserError


def split_clients(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set by clients into members and newcomers.

    Both keep all items with their ids and features; their clients are numbered from 0, in the order
    that they had. What counts as popular, and so as warm, is for both what members have in their
    train split: it is all that training can have seen.

    Args:
        dataset: in one process.
        share: of the clients that are newcomers, between 0 and 1; which ones is uniformly random.
        seed: of the choice.

    Raises:
        UserError: a share that leaves no members or no newcomers.
    """
    n_clients = dataset.interactions.n_clients
    number = round(share * n_clients)
    if not 0 < number < n_clients:
        raise UserError(
            f"a share of {share:g} newcomers among {n_clients} clients: expected one that leaves "
            "members and newcomers"
        )
    new = np.zeros(n_clients, bool)
    new[np.random.default_rng(seed).permutation(n_clients)[:number]] = True
    members, newcomers = (_part(dataset, clients) for clients in (~new, new))
    known = replace(newcomers.interactions, counted=members.interactions.popularity)
    return members, replace(newcomers, interactions=known)


def _part(dataset: Dataset, clients: Bool[np.ndarray, " clients"]) -> Dataset:
    """The data set with some of its clients only."""
    data, planted = dataset.interactions, dataset.planted
    interactions = Interactions(
        n_items=data.n_items,
        offsets=np.concatenate([[0], np.cumsum(data.lengths[clients])]).astype(np.int64),
        items=data.items[np.repeat(clients, data.lengths)],
        valid=data.valid[clients],
        test=data.test[clients],
    )
    return replace(
        dataset,
        interactions=interactions,
        planted=planted and Planted(planted.preference[clients]),
    )
