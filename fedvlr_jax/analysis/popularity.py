"""The popularity ranking: every client is recommended what most clients have in train."""

import numpy as np
from jaxtyping import Int

from fedvlr_jax.data.types import Interactions
from fedvlr_jax.processes import together


def held_out_ranks(
    data: Interactions, target: Int[np.ndarray, " clients"], seed: int
) -> Int[np.ndarray, " clients"]:
    """Each client's rank of its item in `target` by popularity; -1 without one.

    Candidates are all items but the client's train items; among equally popular ones the place is
    drawn uniformly, which is what a random order of ties does.
    """
    popularity = data.popularity
    own = np.where(target >= 0, popularity[target], -1)
    ordered = np.sort(popularity)
    above = data.n_items - np.searchsorted(ordered, own, side="right")
    equal = np.searchsorted(ordered, own, side="right") - np.searchsorted(ordered, own)

    here = np.asarray(data.own)
    client = np.repeat(np.arange(len(here)), data.lengths[here])
    train, held_out = popularity[data.items], own[here][client]
    above, equal = (
        count - together.concatenated(np.bincount(client, taken, len(here)).astype(int))
        for count, taken in ((above, train > held_out), (equal, train == held_out))
    )
    # The held-out item itself is one of the equal ones.
    ties = np.random.default_rng(seed).integers(0, np.maximum(equal, 1))
    return np.where(target >= 0, above + ties, -1)
