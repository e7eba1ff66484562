"""Accuracy by how long a user's history is, and by how popular its held-out item is."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from fedvlr_jax.analysis import metrics

HISTORY_EDGES = (5, 10, 20, 50)
POPULARITY_EDGES = (1, 5, 20, 100)  # the first group has items that nobody trained on


@dataclass(frozen=True)
class Group:
    """Users of one group: what they share, how many have a held-out item, and their metrics."""

    name: str
    users: int
    metrics: dict[str, Any]


def by_value(
    ranks: Int[np.ndarray, " users"],
    warm: Bool[np.ndarray, " users"],
    values: Int[np.ndarray, " users"],
    edges: Sequence[int],
) -> list[Group]:
    """Metrics of users grouped by a whole number, from one edge to below the next.

    Args:
        ranks: of held-out items, -1 for users without one, who are left out.
        warm: see `metrics.from_ranks`.
        values: of every user, not negative: train items, or how many users have the held-out item.
        edges: ascending; the groups are below the first, between neighbours, and from the last on.

    Returns:
        The groups in ascending order; those without users have no numbers (None).
    """
    bounds = [0, *edges, None]
    found = []
    for low, high in itertools.pairwise(bounds):
        chosen = (ranks >= 0) & (values >= low)
        name = f"{low} and more"
        if high is not None:
            chosen &= values < high
            name = str(low) if high == low + 1 else f"{low} to {high - 1}"
        kept = metrics.from_ranks(ranks[chosen], warm[chosen])
        found.append(Group(name, int(chosen.sum()), kept))
    return found
