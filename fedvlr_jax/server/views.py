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


class Features(NamedTuple):
    """The frozen features on the devices; None where a data set has none.

    Rows after the last item are there to make the number of rows fit the number of devices.
    """

    image: Float[Array, "items image_width"] | None
    text: Float[Array, "items text_width"] | None


class _Modality(nn.Module):
    """LayerNorm(x W): one modality's features mapped to width d."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "items width"]) -> Float[Array, "items dim"]:
        return nn.LayerNorm(name="norm")(nn.Dense(self.dim, use_bias=False, name="map")(x))


class _Modalities(nn.Module):
    """All present modalities, each mapped: the [v; c; e] that every mixed operator starts from."""

    dim: int

    @nn.compact
    def __call__(
        self, inputs: dict[str, Float[Array, "items _"]]
    ) -> list[Float[Array, "items dim"]]:
        return [_Modality(self.dim, name=name)(x) for name, x in inputs.items()]


class Sum(nn.Module):
    """v + c + e."""

    dim: int

    @nn.compact
    def __call__(self, inputs: dict[str, Float[Array, "items _"]]) -> Float[Array, "items dim"]:
        """Fuse `inputs` (modality name to rows) into one row of width d per item."""
        return sum(_Modalities(self.dim, name="inputs")(inputs))


class Mlp(nn.Module):
    """LayerNorm(W2 relu(W1 [v; c; e])), hidden width 2d."""

    dim: int

    @nn.compact
    def __call__(self, inputs: dict[str, Float[Array, "items _"]]) -> Float[Array, "items dim"]:
        """Fuse `inputs` (modality name to rows) into one row of width d per item."""
        stacked = jnp.concatenate(_Modalities(self.dim, name="inputs")(inputs), axis=-1)
        hidden = nn.relu(nn.Dense(2 * self.dim, name="hidden")(stacked))
        return nn.LayerNorm(name="norm")(nn.Dense(self.dim, name="out")(hidden))


class Gate(nn.Module):
    """sigmoid(Wg [v; c; e]) * [v; c; e], added over the modalities."""

    dim: int

    @nn.compact
    def __call__(self, inputs: dict[str, Float[Array, "items _"]]) -> Float[Array, "items dim"]:
        """Fuse `inputs` (modality name to rows) into one row of width d per item."""
        mapped = _Modalities(self.dim, name="inputs")(inputs)
        stacked = jnp.concatenate(mapped, axis=-1)
        gated = nn.sigmoid(nn.Dense(stacked.shape[-1], name="gate")(stacked)) * stacked
        return sum(jnp.split(gated, len(mapped), axis=-1))


class Single(nn.Module):
    """One modality alone: v, c or e."""

    dim: int
    modality: str

    @nn.compact
    def __call__(self, inputs: dict[str, Float[Array, "items _"]]) -> Float[Array, "items dim"]:
        """Map one of `inputs` (modality name to rows) to width d."""
        return _Modality(self.dim, name=self.modality)(inputs[self.modality])


def operator(name: str, dim: int) -> nn.Module:
    """The fusion operator that the flag value `name` stands for."""
    mixed = {"sum": Sum, "mlp": Mlp, "gate": Gate}
    if name in mixed:
        return mixed[name](dim, name=f"view_{name}")
    return Single(dim, modality=name, name=f"view_{name}")


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
        present = {name: rows for name, rows in inputs.items() if rows is not None}
        fused = [operator(name, self.dim)(present) for name in self.views]
        return jnp.stack(fused, axis=1)[: self.n_items]
