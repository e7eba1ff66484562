"""How much one client's scores rely on each modality."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.backbones.base import Network
from fedvlr_jax.client.model import ClientModel, ClientState


def reliance(
    model: ClientModel,
    network: Network,
    state: ClientState,
    weights: Float[Array, " views"],
    views: Float[Array, "items views dim"],
    removed: Float[Array, "modalities items views dim"],
) -> Float[Array, " modalities"]:
    """Shares that sum to 1: how far the client's scores move when a modality is taken out.

    The change of all items' scores is taken about its mean, because what moves all items alike
    changes no ranking; a share is proportional to its root mean square. The view weights are held,
    and own item vectors left aside.

    Args:
        model: the client's.
        network: what the backbone shares.
        state: the client's private state.
        weights: w_u.
        views: F_1..F_G of every item.
        removed: the same without each modality.
    """
    scores = model.scores(network, state, weights, views)

    def moved(without: Float[Array, "items views dim"]) -> Float[Array, ""]:
        return jnp.std(scores - model.scores(network, state, weights, without))

    change = jax.lax.map(moved, removed)
    return change / jnp.maximum(change.sum(), 1e-12)
