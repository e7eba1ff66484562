"""What views are made of: how much of each goes when a modality is taken out."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def composition(
    views: Float[Array, "items views dim"], removed: Float[Array, "modalities items views dim"]
) -> Float[Array, "views modalities"]:
    """Share of each modality in each view; a view's shares sum to 1.

    A modality is taken out of a view by giving all items its mean (`Fusion`); its share is
    proportional to the root mean square, over items, of what that changes. What it changes alike
    for all items changes no ranking and is left aside.

    Args:
        views: F_1..F_G of every item.
        removed: the same without each modality.
    """
    change = views - removed
    change = change - change.mean(axis=1, keepdims=True)
    size = jnp.sqrt(jnp.square(change).mean(axis=(1, 3))).T
    return size / jnp.maximum(size.sum(axis=1, keepdims=True), 1e-12)
