"""What rankings show beside how accurate they are: how many items, how evenly, how unknown ones.

Coverage and the Gini coefficient of exposure as in Ge et al. 2010 ("Beyond accuracy") and Fleder
and Hosanagar 2009; novelty is the mean self-information of what is shown (Zhou et al. 2010).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from fedvlr_jax.names import CUTOFFS

_NAMES = ("coverage", "gini", "novelty")


def of_rankings(
    top: Int[np.ndarray, "users top"],
    popularity: Int[np.ndarray, " items"],
    n_clients: int,
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, float | None]:
    """How exposed items are in the first K places of all users' rankings.

    Args:
        top: every user's items, best first, -1 where there are fewer.
        popularity: how many clients have each item in the train split.
        n_clients: number of clients.
        cutoffs: the values of K, none larger than the rankings are long.

    Returns:
        For every cutoff K `coverage@K`, the percentage of all items that somebody is shown;
        `gini@K`, from 0 where all items are shown equally often to almost 1 where only one is;
        `novelty@K`, the mean over all that is shown of -log2 (P + 1)/(U + 1), in bits, P of the U
        clients having the item: 0 for one that everybody has. None where nobody is shown any.

    Example:
        >>> shown = np.array([[0, 1], [0, -1]])
        >>> found = of_rankings(shown, np.array([3, 0, 1, 1]), n_clients=3)
        >>> found["coverage@10"], round(found["gini@10"], 3), round(found["novelty@10"], 2)
        (50.0, 0.583, 0.67)
    """
    n_items, found = len(popularity), {}
    if not (top >= 0).any():
        return dict.fromkeys(f"{name}@{k}" for k in cutoffs for name in _NAMES)
    surprise = -np.log2((popularity + 1) / (n_clients + 1))
    for k in cutoffs:
        shown = top[:, :k]
        items = shown[shown >= 0]
        counts = np.bincount(items, minlength=n_items)
        found[f"coverage@{k}"] = float(100 * (counts > 0).mean())
        found[f"gini@{k}"] = _gini(counts)
        found[f"novelty@{k}"] = float(surprise[items].mean())
    return found


def _gini(counts: Int[np.ndarray, " items"]) -> float:
    """Half the mean difference of two counts, relative to their mean."""
    ordered, n = np.sort(counts), len(counts)
    places = np.arange(1, n + 1)
    return float(((2 * places - n - 1) * ordered).sum() / (n * ordered.sum()))
