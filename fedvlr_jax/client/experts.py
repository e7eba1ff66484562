"""Experts that score items beside the views: the neighbours of a client's items.

The server finds from X^T X how much every item of a history says for every other item (EASE, Steck
2019, arXiv 1905.03375; server/spectral.py). A client adds these weights up over its history. Its
scores by views and head and those by neighbours are on different scales, which differ from client
to client as well: each is brought to mean 0 and standard deviation 1 over the items first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.protocol import Neighbours

_NOTHING = 1e-6  # of the largest score; a deviation below is rounding errors


def with_neighbours(
    known: Neighbours | None,
    scores: Float[Array, " items"],
    history: Int[Array, " history"],
    real: Bool[Array, " history"],
) -> Float[Array, " items"]:
    """The scores of all items with those by neighbours; the same scores where there are none.

    Args:
        known: what the server says of neighbours.
        scores: by views and head.
        history: ids of the train items.
        real: which places are no padding.
    """
    if known is None:
        return scores

    def add(place: Int[Array, ""], total: Float[Array, " items"]) -> Float[Array, " items"]:
        return total + real[place] * known.weights.at[history[place]].get(mode="clip")

    # Row by row, as those of a history together would fill memory.
    total = jax.lax.fori_loop(0, len(history), add, jnp.zeros_like(scores))
    return _standardized(scores) + known.share * _standardized(total)


def _standardized(scores: Float[Array, " items"]) -> Float[Array, " items"]:
    """With mean 0 and standard deviation 1; 0 where all are the same."""
    centred = scores - scores.mean()
    deviation = jnp.sqrt(jnp.square(centred).mean())
    same = deviation <= _NOTHING * jnp.abs(scores).max()
    return jnp.where(same, 0, centred / jnp.where(same, 1, deviation))
