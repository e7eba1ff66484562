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
    grouped = []
    for name, low, high in ranges(edges):
        chosen = (ranks >= 0) & within(values, low, high)
        measured = metrics.from_ranks(ranks[chosen], warm[chosen])
        grouped.append(Group(name, int(chosen.sum()), measured))
    return grouped


def ranges(edges: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """Name, first number and first number beyond (None: no end) of every group, ascending.

    Example:
        >>> ranges((1, 5))
        [('0', 0, 1), ('1 to 4', 1, 5), ('5 and more', 5, None)]
    """
    named = []
    for low, high in itertools.pairwise([0, *edges, None]):
        name = f"{low} and more"
        if high is not None:
            name = str(low) if high == low + 1 else f"{low} to {high - 1}"
        named.append((name, low, high))
    return named


def within(
    values: Int[np.ndarray, " users"], low: int, high: int | None
) -> Bool[np.ndarray, " users"]:
    """Which numbers are in a group of `ranges`."""
    return (values >= low) & (values < (np.inf if high is None else high))
