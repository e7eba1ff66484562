"""Uniform negatives over all items that are not in one client's history, without rejection."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def sample_negatives(
    key: Array, history: Int[Array, " history"], n_items: int, per_positive: int
) -> Int[Array, "history per_positive"]:
    """Draw `per_positive` negatives for every place of a history.

    The k-th item outside a sorted history h is k + #{j : h_j - j <= k}, so a uniform k gives a
    uniform non-member with one draw. Row r of the result depends on the key and the real history
    only, never on how many padding places follow (JAX's partitionable threefry counts draws by
    their position), so buckets do not change a result. Taking a 32-bit draw modulo the pool
    favours no item by more than n_items / 2**32.

    Args:
        key: of this client, round and epoch.
        history: ascending train items; places past the end hold `n_items`.
        n_items: number of items I; at least one is outside the history.
        per_positive: negatives per place.
    """
    width = history.shape[0]
    gaps = history - jnp.arange(width)
    # Padding must count neither as history nor as a gap; n_items is above every k.
    gaps = jnp.where(history < n_items, gaps, n_items)
    pool = n_items - (history < n_items).sum()
    bits = jax.random.bits(key, (width, per_positive), jnp.uint32)
    k = (bits % pool.astype(jnp.uint32)).astype(jnp.int32)
    return k + (gaps <= k[:, :, None]).sum(axis=-1, dtype=jnp.int32)
