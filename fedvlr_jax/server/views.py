"""Fusion operators: image, text and ID embeddings of every item in, pre-fused views out.

METHOD "Forward", FedVLR (arXiv 2410.08478): each operator g_j has parameters gamma_j of its own,
its maps from the features' width to d included. V, C, D denote image features, text features and
ID embeddings; v, c, e what a learned linear map and layer normalization make of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

_EMBEDDING_SCALE = 0.1  # standard deviation of initial ID embeddings; the layer norms absorb it


# One operator's v, c and e, by the name of the modality; without those a data set has not.
Mapped = dict[str, Float[Array, "items dim"]]


class Features(NamedTuple):
    """The frozen features on the devices; None where a data set has none.

    Rows after the last item are there to make the number of rows fit the number of devices.
    """

    image: Float[Array, "items image_width"] | None
    text: Float[Array, "items text_width"] | None


class _Maps(nn.Module):
    """LayerNorm(x W_j): one modality mapped to width d, for every operator j that reads it.

    The maps of all operators are one matrix product, which is faster than one each.
    """

    operators: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "items width"]) -> list[Float[Array, "items dim"]]:
        mapped = nn.Dense(self.operators * self.dim, use_bias=False, name="map")(x)
        parts = jnp.split(mapped, self.operators, axis=-1)
        return [nn.LayerNorm(name=f"norm_{j}")(part) for j, part in enumerate(parts)]


class Sum(nn.Module):
    """v + c + e."""

    dim: int

    @nn.compact
    def __call__(self, mapped: Mapped) -> Float[Array, "items dim"]:
        """Fuse the operator's own v, c, e (those there are) into one row per item."""
        return sum(mapped.values())


class Mlp(nn.Module):
    """LayerNorm(W2 relu(W1 [v; c; e])), hidden width 2d."""

    dim: int

    @nn.compact
    def __call__(self, mapped: Mapped) -> Float[Array, "items dim"]:
        """Fuse the operator's own v, c, e (those there are) into one row per item."""
        stacked = jnp.concatenate(list(mapped.values()), axis=-1)
        hidden = nn.relu(nn.Dense(2 * self.dim, name="hidden")(stacked))
        return nn.LayerNorm(name="norm")(nn.Dense(self.dim, name="out")(hidden))


class Gate(nn.Module):
    """sigmoid(Wg [v; c; e]) * [v; c; e], added over the modalities."""

    dim: int

    @nn.compact
    def __call__(self, mapped: Mapped) -> Float[Array, "items dim"]:
        """Fuse the operator's own v, c, e (those there are) into one row per item."""
        stacked = jnp.concatenate(list(mapped.values()), axis=-1)
        gated = nn.sigmoid(nn.Dense(stacked.shape[-1], name="gate")(stacked)) * stacked
        return sum(jnp.split(gated, len(mapped), axis=-1))


_MIXED = {"sum": Sum, "mlp": Mlp, "gate": Gate}


class Fusion(nn.Module):
    """The server's model: ID embeddings D and the operators g_1..g_G with their gamma."""

    views: tuple[str, ...]
    n_items: int
    dim: int

    @nn.compact
    def __call__(self, features: Features) -> Float[Array, "items views dim"]:
        """F_1..F_G of every item, stacked on the second axis (a row holds all its views).

        Nothing mixes rows, so where the features' rows are split over devices, so is the work.
        """
        embedding = self.param(
            "item_embedding",
            nn.initializers.normal(_EMBEDDING_SCALE),
            (self.n_items, self.dim),
        )
        inputs = {"image": features.image, "text": features.text, "id": embedding}
        n_rows = max(len(rows) for rows in inputs.values() if rows is not None)
        inputs["id"] = jnp.pad(embedding, ((0, n_rows - self.n_items), (0, 0)))
        # Each operator has maps of its own; a view named like a modality is that one alone.
        mapped: dict[str, dict[str, Array]] = {view: {} for view in self.views}
        for modality, rows in inputs.items():
            readers = [view for view in self.views if view in _MIXED or view == modality]
            if rows is not None and readers:
                own = _Maps(len(readers), self.dim, name=modality)(rows)
                for view, part in zip(readers, own, strict=True):
                    mapped[view][modality] = part
        fused = [
            _MIXED.get(view, Sum)(self.dim, name=f"view_{view}")(mapped[view])
            for view in self.views
        ]
        return jnp.stack(fused, axis=1)[: self.n_items]
