"""Fusion operators: image, text and ID embeddings of every item in, pre-fused views out.

METHOD "Forward", FedVLR (arXiv 2410.08478): each operator g_j has parameters gamma_j of its own,
its maps from the features' width to d included. V, C, D denote image features, text features and
ID embeddings; v, c, e what a learned linear map and layer normalization make of them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from fedvlr_jax.names import MODALITIES
from fedvlr_jax.registry import VIEWS

_EMBEDDING_SCALE = 0.1  # standard deviation of initial ID embeddings; the layer norms absorb it
_ATTENTION_HEADS = 4
_BIAS = 2.0  # initial logit of a dominant modality, which gives it 79 % of three
EMBEDDING = "item_embedding"  # the name of D among the parameters

# One operator's v, c and e, by the name of the modality; without those a data set has not.
Mapped = dict[str, Float[Array, "items dim"]]


class Features(NamedTuple):
    """What is known of the items beside who has them; None where a data set has none.

    `neighbours` are ids of each item's nearest ones, for the view `graph`. Rows after the last item
    are there to make the number of rows fit the number of devices.
    """

    image: Float[Array, "items image_width"] | None
    text: Float[Array, "items text_width"] | None
    neighbours: Int[Array, "items neighbours"] | None = None


class _Maps(nn.Module):
    """LayerNorm(x W_j): one modality mapped to width d, for every operator j that reads it.

    The maps of all operators are one matrix product, which is faster than one each. Without
    `layer_norm` they are x W_j.
    """

    operators: int
    dim: int
    layer_norm: bool

    @nn.compact
    def __call__(self, x: Float[Array, "items width"]) -> list[Float[Array, "items dim"]]:
        mapped = nn.Dense(self.operators * self.dim, use_bias=False, name="map")(x)
        parts = jnp.split(mapped, self.operators, axis=-1)
        if not self.layer_norm:
            return parts
        return [nn.LayerNorm(name=f"norm_{j}")(part) for j, part in enumerate(parts)]


class _Operator(nn.Module):
    """A fusion operator g_j.

    Called with the operator's own v, c, e (those there are) and the features, it gives one row of
    width d for every item.
    """

    dim: int


class Sum(_Operator):
    """v + c + e; of a single modality, that one alone."""

    @nn.compact
    def __call__(self, mapped: Mapped, _: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        return sum(mapped.values())


class Mlp(_Operator):
    """LayerNorm(W2 relu(W1 [v; c; e])), hidden width 2d."""

    @nn.compact
    def __call__(self, mapped: Mapped, _: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        stacked = jnp.concatenate(list(mapped.values()), axis=-1)
        hidden = nn.relu(nn.Dense(2 * self.dim, name="hidden")(stacked))
        return nn.LayerNorm(name="norm")(nn.Dense(self.dim, name="out")(hidden))


class Gate(_Operator):
    """sigmoid(Wg [v; c; e]) * [v; c; e], added over the modalities."""

    @nn.compact
    def __call__(self, mapped: Mapped, _: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        stacked = jnp.concatenate(list(mapped.values()), axis=-1)
        gated = nn.sigmoid(nn.Dense(stacked.shape[-1], name="gate")(stacked)) * stacked
        return sum(jnp.split(gated, len(mapped), axis=-1))


class Attention(_Operator):
    """Multi-head self-attention (Vaswani et al. 2017) over the tokens v, c, e, mean-pooled.

    Four heads, or as many of four, two and one as divide d.
    """

    @nn.compact
    def __call__(self, mapped: Mapped, _: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        tokens = jnp.stack(list(mapped.values()), axis=1)
        heads = int(np.gcd(_ATTENTION_HEADS, self.dim))
        attended = nn.MultiHeadDotProductAttention(num_heads=heads, name="attention")(tokens)
        return attended.mean(axis=1)


class Mixture(_Operator):
    """The softmax-weighted sum of v, c and e; its weights are learned and start on `towards`.

    `towards` is a modality, or "" for equal weights.
    """

    towards: str = ""

    @nn.compact
    def __call__(self, mapped: Mapped, _: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        start = jnp.array([_BIAS * (name == self.towards) for name in mapped])
        logits = self.param("weights", lambda _: start)
        return jnp.einsum("m,mid->id", jax.nn.softmax(logits), jnp.stack(list(mapped.values())))


class Graph(_Operator):
    """v + c + e, averaged over an item and its nearest neighbours by CLIP similarity.

    Not of the paper. It carries collaborative signal to items that nobody has touched.
    """

    @nn.compact
    def __call__(self, mapped: Mapped, features: Features) -> Float[Array, "items dim"]:
        """See `_Operator`."""
        rows = sum(mapped.values())
        return (rows + rows[features.neighbours].sum(axis=1)) / (1 + features.neighbours.shape[1])


@dataclass(frozen=True)
class View:
    """A fusion operator as `--views` names it.

    Attributes:
        name: its flag value.
        module: (dim, name=...) -> a module like `_Operator`.
        reads: the modalities that it is made of, those of them that there are.
        needs: a modality without which it is nothing, "" where any will do.
        mixes: whether it mixes rows of different items; then it finds each item's nearest ones in
            `Features.neighbours`.
    """

    name: str
    module: Callable[..., nn.Module]
    reads: tuple[str, ...] = MODALITIES
    needs: str = ""
    mixes: bool = False


VIEWS.own(
    View("sum", Sum),
    View("mlp", Mlp),
    View("gate", Gate),
    View("attention", Attention),
    View("image_dominant", functools.partial(Mixture, towards="image"), needs="image"),
    View("text_dominant", functools.partial(Mixture, towards="text"), needs="text"),
    View("balanced", Mixture),
    View("graph", Graph, mixes=True),
    *(View(modality, Sum, reads=(modality,), needs=modality) for modality in MODALITIES),
)


def named(*names: str) -> tuple[View, ...]:
    """The fusion operators with these flag values."""
    return tuple(VIEWS[name] for name in names)


class Fusion(nn.Module):
    """The server's model: ID embeddings D and the operators g_1..g_G with their gamma.

    `used` are the modalities that views may read. D is there even where none reads it.
    `layer_norm` says whether v, c and e are layer-normed, so that all items' have the same norm.
    """

    views: tuple[View, ...]
    n_items: int
    dim: int
    used: tuple[str, ...] = MODALITIES
    layer_norm: bool = True

    @nn.compact
    def __call__(self, features: Features, without: str = "") -> Float[Array, "items views dim"]:
        """F_1..F_G of every item, stacked on the second axis (a row holds all its views).

        Most mix no rows, so where the features' rows are split over devices, so is the work.

        Args:
            features: of the items.
            without: a modality whose v, c or e are the same for all items, namely their mean.
        """
        embedding = self.param(
            EMBEDDING, nn.initializers.normal(_EMBEDDING_SCALE), (self.n_items, self.dim)
        )
        # Each operator has maps of its own.
        mapped: dict[str, Mapped] = {view.name: {} for view in self.views}
        for modality, rows in self._inputs(features, embedding).items():
            readers = [view.name for view in self.views if modality in view.reads]
            own = _Maps(len(readers), self.dim, self.layer_norm, name=modality)(rows)
            if modality == without:
                own = [
                    jnp.broadcast_to(part[: self.n_items].mean(axis=0), part.shape) for part in own
                ]
            for view, part in zip(readers, own, strict=True):
                mapped[view][modality] = part
        fused = [
            view.module(self.dim, name=f"view_{view.name}")(mapped[view.name], features)
            for view in self.views
        ]
        return jnp.stack(fused, axis=1)[: self.n_items]

    def modalities(self, features: Features) -> tuple[str, ...]:
        """Those that some view reads and the features have, in the order of `MODALITIES`."""
        there = {"image": features.image, "text": features.text, "id": self.n_items}
        return tuple(
            name
            for name in MODALITIES
            if there[name] is not None
            and name in self.used
            and any(name in view.reads for view in self.views)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The flag values of the views."""
        return tuple(view.name for view in self.views)

    def _inputs(
        self, features: Features, embedding: Float[Array, "items dim"]
    ) -> dict[str, Float[Array, "rows width"]]:
        """V, C and D of what some view reads, with as many rows each."""
        inputs = {"image": features.image, "text": features.text, "id": embedding}
        n_rows = max(len(rows) for rows in inputs.values() if rows is not None)
        inputs["id"] = jnp.pad(embedding, ((0, n_rows - self.n_items), (0, 0)))
        return {name: inputs[name] for name in self.modalities(features)}
