"""HR@K, NDCG@K and MRR@K from the ranks of held-out items, over all, warm and cold clients.

With one held-out item a client recall@K is HR@K, and MAP@K is MRR@K.

METHOD "Evaluation": percent, averaged over the clients that have a held-out item. A client is warm
if somebody has its held-out item in the train split, cold if nobody has.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fedvlr_jax.names import CUTOFFS, METRIC_GROUPS

_SELECTED = 50  # K of what chooses, where it is measured
SELECTION = f"warm/ndcg@{_SELECTED}"  # where nobody has asked for other K
_NDCG = re.compile(r"(?:.*/)?ndcg@(\d{1,9})")


def from_ranks(
    ranks: Int[np.ndarray, " clients"],
    warm: Bool[np.ndarray, " clients"],
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, float | None]:
    """HR@K, NDCG@K and MRR@K in percent, and again as `warm/...` and `cold/...`.

    Args:
        ranks: place of each client's held-out item, 0 for the first; -1 for clients left out.
        warm: whether that item has a train interaction by anyone.
        cutoffs: the values of K.

    Returns:
        `hr@10` .. `mrr@50`, or of other K, None for a group without clients (never NaN, so that it
        is JSON).

    Example:
        >>> ranks = np.array([0, 12, 99, -1])
        >>> measured = from_ranks(ranks, warm=np.array([True, True, False, False]))
        >>> round(measured["hr@10"], 1), round(measured["hr@20"], 1)  # of the three with an item
        (33.3, 66.7)
        >>> round(measured["warm/ndcg@50"], 1), measured["cold/hr@50"]
        (63.1, 0.0)
    """
    has = ranks >= 0
    groups = dict(zip(METRIC_GROUPS, (has, has & warm, has & ~warm), strict=True))
    return {
        group + name: value
        for group, chosen in groups.items()
        for name, value in _metrics(ranks[chosen], cutoffs).items()
    }


def _metrics(ranks: np.ndarray, cutoffs: Sequence[int]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for k in cutoffs:
        hit = ranks < k
        values[f"hr@{k}"] = float(100 * hit.mean()) if len(ranks) else None
        values[f"ndcg@{k}"] = float(100 * gains(ranks, k).mean()) if len(ranks) else None
        values[f"mrr@{k}"] = float(100 * (hit / (ranks + 1.0)).mean()) if len(ranks) else None
    return values


def worst_tenth(ranks: Int[np.ndarray, " clients"]) -> float | None:
    """NDCG in percent of the tenth of the clients for whom it is lowest, without a cutoff.

    With a cutoff it would be 0 wherever a tenth of all clients miss their item. None where nobody
    has a held-out item.

    Example:
        >>> round(worst_tenth(np.array([*[0] * 9, 6, -1])), 1)
        33.3
    """
    ranks = np.sort(ranks[ranks >= 0])
    worst = ranks[len(ranks) - -(-len(ranks) // 10) :]
    return float(100 * gains(worst, np.iinfo(np.int64).max).mean()) if len(worst) else None


def gains(ranks: Int[np.ndarray, "*shape"], cutoff: int) -> Float[np.ndarray, "*shape"]:
    """NDCG@cutoff, from 0 to 1, of every rank: with one relevant item the ideal DCG is 1.

    Where there is no rank, -1, it is 0.

    Example:
        >>> gains(np.array([0, 1, 9, 50]), cutoff=50).round(2).tolist()
        [1.0, 0.63, 0.29, 0.0]
    """
    hit = (ranks >= 0) & (ranks < cutoff)
    return np.where(hit, 1 / np.log2(np.maximum(ranks, 0) + 2.0), 0)


def of_line(line: Mapping[str, Any]) -> dict[str, float | None]:
    """The validation metrics of a line of metrics.jsonl, by their names in `from_ranks`."""
    prefix = "valid/"
    return {
        name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)
    }


def cutoffs_of(names: Iterable[str]) -> set[int]:
    """The values of K that some metrics are measured at, told by the names of their NDCG@K.

    Example:
        >>> sorted(cutoffs_of(["warm/ndcg@5", "test/ndcg@20", "hr@10", "worst_tenth/ndcg"]))
        [5, 20]
    """
    return {int(found[1]) for name in names if (found := _NDCG.fullmatch(name))}


def told(names: Iterable[str]) -> list[str]:
    """Of some metrics those that one line has room for: HR and NDCG at the first and last K.

    Example:
        >>> told(["ndcg@5", "ndcg@10", "ndcg@20"])
        ['hr@5', 'hr@20', 'ndcg@5', 'ndcg@20']
    """
    known = sorted(cutoffs_of(names))
    ends = sorted({*known[:1], *known[-1:]})
    return [f"{name}@{k}" for name in ("hr", "ndcg") for k in ends]


def selection_cutoff(cutoffs: Iterable[int]) -> int:
    """K of the NDCG that chooses the best round: 50, or the largest where 50 is not measured.

    Of no cutoffs it is 50.

    Example:
        >>> selection_cutoff((10, 50, 100)), selection_cutoff((5, 10))
        (50, 10)
    """
    known = set(cutoffs)
    return _SELECTED if _SELECTED in known else max(known, default=_SELECTED)


def selection(names: Iterable[str]) -> str:
    """The one of some metrics that chooses the best round: `warm/ndcg@50`, or of another K."""
    return f"warm/ndcg@{selection_cutoff(cutoffs_of(names))}"


def selection_score(metrics: Mapping[str, float | None]) -> float | None:
    """What the best round is chosen by: its `selection`, or over all clients if none is warm.

    None where nobody has a held-out item.
    """
    chosen = selection(metrics)
    warm = metrics[chosen]
    return metrics[chosen.removeprefix("warm/")] if warm is None else warm
