import numpy as np

from fedvlr_jax.analysis import popularity
from fedvlr_jax.data.types import Interactions
from tests import worlds


def test_ranks_lie_between_those_of_sorting_ties_first_and_last():
    data = worlds.dataset()
    counts = data.interactions.popularity
    ranks = popularity.held_out_ranks(data.interactions, data.interactions.test, seed=0)
    for user, (train, target) in enumerate(
        zip(worlds.histories(data), data.interactions.test, strict=True)
    ):
        if target < 0:
            assert ranks[user] == -1
            continue
        candidates = np.setdiff1d(np.arange(worlds.N_ITEMS), [*train, target])
        above = (counts[candidates] > counts[target]).sum()
        tied = (counts[candidates] == counts[target]).sum()
        assert above <= ranks[user] <= above + tied


def test_ties_are_broken_uniformly():
    # Every item is in exactly one history, so all candidates but the own items are tied.
    n_clients, length = 2000, 5
    n_items = n_clients * length
    items = np.arange(n_items, dtype=np.int32)
    target = np.roll(items, -length)[::length].astype(np.int32)
    data = Interactions(n_items, np.arange(0, n_items + 1, length), items, target, target)
    ranks = popularity.held_out_ranks(data, target, seed=1)
    share = ranks / (n_items - length)
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(1 / 12 / n_clients)
    assert share.min() < 0.01
    assert share.max() > 0.99
