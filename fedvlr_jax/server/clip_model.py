"""CLIP's two towers (Radford et al., 2021) in Flax, frozen.

They compute what transformers' `CLIPModel` and `FlaxCLIPModel` do. Every module has its full name
there, with dots, so that published weights need no table of names:
`text_model.encoder.layers.0.mlp.fc1`.
"""

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.foreign import short

_ACTIVATIONS = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu": partial(nn.gelu, approximate=False),
}
# Larger ones than any CLIP has are a mistake, and would take time and memory before it is seen.
LONGEST_EDGE = 4_096
_MOST = {"num_hidden_layers": 1_000, "image_size": LONGEST_EDGE}


def check_whole(value: Any, name: str, most: int) -> None:
    """Refuse anything but a whole number from 1 to `most`.

    Raises:
        ValueError: so it is.
    """
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(
            f"{name} is {short(value, 40)}, expected a whole number from 1 to {most:,}"
        )


@dataclass(frozen=True)
class _Sizes:
    """Entries of config.json; one that is missing there is the default."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.type is int:
                check_whole(getattr(self, one.name), one.name, _MOST.get(one.name, 2**31))

    @classmethod
    def of(cls, content: Any, **known: Any) -> Any:
        """What an object of config.json holds, and what is `known` already.

        Raises:
            ValueError: it is no object, or no CLIP has such sizes.
        """
        if not isinstance(content, dict):
            raise ValueError(f"config.json has {short(content, 40)} where sizes are expected")
        return cls(**{x.name: content[x.name] for x in fields(cls) if x.name in content} | known)


@dataclass(frozen=True)
class _TowerConfig(_Sizes):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"a tower has a hidden_size of {self.hidden_size} and {self.num_attention_heads} "
                "heads, expected a multiple of the heads"
            )
        if self.hidden_act not in _ACTIVATIONS:
            raise ValueError(
                f"hidden_act is {short(self.hidden_act, 40)}, expected {' or '.join(_ACTIVATIONS)}"
            )


@dataclass(frozen=True)
class TextConfig(_TowerConfig):
    """The tower of texts."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407

    def ends(self, tokens: Int[Array, "*batch length"]) -> Int[Array, "*batch"]:
        """Where texts end."""
        # Files of before transformers 4.31 say 2 and mean the largest token.
        return (tokens if self.eos_token_id == 2 else tokens == self.eos_token_id).argmax(-1)


@dataclass(frozen=True)
class VisionConfig(_TowerConfig):
    """The tower of pictures."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32


@dataclass(frozen=True)
class ClipConfig(_Sizes):
    """A CLIP's config.json."""

    text_config: TextConfig = field(default_factory=TextConfig)
    vision_config: VisionConfig = field(default_factory=VisionConfig)
    projection_dim: int = 512

    @classmethod
    def stored(cls, content: dict[str, Any]) -> "ClipConfig":
        """What a config.json holds.

        Raises:
            ValueError: it is another model's, or no CLIP has such sizes.
        """
        if content.get("model_type") != "clip":
            kind = short(content.get("model_type"), 40)
            raise ValueError(f"its model_type is {kind}, expected clip")
        towers = {}
        for name, kind in (("text_config", TextConfig), ("vision_config", VisionConfig)):
            # Of files that have both, transformers takes the first.
            given = (content.get(f"{name}_dict"), content.get(name), {})
            towers[name] = kind.of(next(x for x in given if x is not None))
        return cls.of(content, **towers)


class _Tower(nn.Module):
    """What both towers are made of; to be called where modules are made."""

    config: ClipConfig
    dtype: Any

    def products(self) -> jax.lax.Precision | None:
        """Accelerators round the operands of float32 products unless they are told not to."""
        return jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None

    def dense(self, name: str, width: int, x: Float[Array, "*batch in"]) -> Array:
        bias = not name.endswith("_projection")
        return nn.Dense(width, bias, self.dtype, precision=self.products(), name=name)(x)

    def norm(self, name: str, sizes: _TowerConfig, x: Float[Array, "*batch hidden"]) -> Array:
        return nn.LayerNorm(epsilon=sizes.layer_norm_eps, dtype=self.dtype, name=name)(x)

    def layers(
        self,
        name: str,
        sizes: _TowerConfig,
        x: Float[Array, "batch length hidden"],
        mask: Bool[Array, "batch 1 length length"] | None = None,
    ) -> Float[Array, "batch length hidden"]:
        for layer in (f"{name}.encoder.layers.{k}" for k in range(sizes.num_hidden_layers)):
            before = self.norm(f"{layer}.layer_norm1", sizes, x)
            query, key, value = (
                self.dense(f"{layer}.self_attn.{part}_proj", sizes.hidden_size, before).reshape(
                    *x.shape[:2], sizes.num_attention_heads, -1
                )
                for part in "qkv"
            )
            mixed = nn.dot_product_attention(
                query, key, value, mask=mask, dtype=self.dtype, precision=self.products()
            ).reshape(x.shape)
            x = x + self.dense(f"{layer}.self_attn.out_proj", sizes.hidden_size, mixed)
            before = self.norm(f"{layer}.layer_norm2", sizes, x)
            inner = self.dense(f"{layer}.mlp.fc1", sizes.intermediate_size, before)
            inner = _ACTIVATIONS[sizes.hidden_act](inner)
            x = x + self.dense(f"{layer}.mlp.fc2", sizes.hidden_size, inner)
        return x


class TextTower(_Tower):
    """Texts to embeddings, not yet of norm 1."""

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch length"], there: Int[Array, "batch length"]
    ) -> Float[Array, "batch dim"]:
        """Embed `tokens`; `there` is 0 for those that only fill up."""
        sizes, name = self.config.text_config, "text_model"
        words = f"{name}.embeddings.token_embedding"
        places = f"{name}.embeddings.position_embedding"
        x = nn.Embed(sizes.vocab_size, sizes.hidden_size, name=words)(tokens)
        x = x + nn.Embed(sizes.max_position_embeddings, sizes.hidden_size, name=places)(
            jnp.arange(tokens.shape[1])
        )
        mask = nn.combine_masks(nn.make_causal_mask(tokens), there[:, None, None] > 0, dtype=bool)
        x = self.layers(name, sizes, x, mask)
        x = self.norm(f"{name}.final_layer_norm", sizes, x)
        x = jnp.take_along_axis(x, sizes.ends(tokens)[:, None, None], axis=1)[:, 0]
        return self.dense("text_projection", self.config.projection_dim, x)


class VisionTower(_Tower):
    """Pictures to embeddings, not yet of norm 1."""

    @nn.compact
    def __call__(self, pixels: Float[Array, "batch 3 size size"]) -> Float[Array, "batch dim"]:
        """Embed pictures that are scaled and normalized."""
        sizes, name = self.config.vision_config, "vision_model"
        patches = nn.Conv(
            sizes.hidden_size,
            kernel_size=(sizes.patch_size,) * 2,
            strides=sizes.patch_size,
            padding="VALID",
            use_bias=False,
            dtype=self.dtype,
            precision=self.products(),
            name=f"{name}.embeddings.patch_embedding",
        )(pixels.transpose(0, 2, 3, 1)).reshape(len(pixels), -1, sizes.hidden_size)
        whole = f"{name}.embeddings.class_embedding"
        whole = self.param(whole, nn.initializers.zeros, (sizes.hidden_size,))
        x = jnp.concatenate([jnp.broadcast_to(whole, patches[:, :1].shape), patches], axis=1)
        places = f"{name}.embeddings.position_embedding"
        x = x + nn.Embed(x.shape[1], sizes.hidden_size, name=places)(jnp.arange(x.shape[1]))
        x = self.norm(f"{name}.pre_layrnorm", sizes, x)
        x = self.layers(name, sizes, x)[:, 0]
        x = self.norm(f"{name}.post_layernorm", sizes, x)
        return self.dense("visual_projection", self.config.projection_dim, x)


def shapes(config: ClipConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of all weights, in the order of their names' parts."""
    one = jnp.ones((1, 1), jnp.int32)
    picture = jnp.zeros((1, 3, *(config.vision_config.image_size,) * 2))
    by_name: dict[tuple[str, ...], tuple[int, ...]] = {("logit_scale",): ()}  # of training only
    for tower, inputs in ((TextTower, (one, one)), (VisionTower, (picture,))):
        made = partial(tower(config, jnp.float32).init, jax.random.key(0))
        params = jax.eval_shape(made, *inputs)["params"]
        by_name |= {path: x.shape for path, x in traverse_util.flatten_dict(params).items()}
    return dict(sorted(by_name.items(), key=lambda one: ".".join(one[0]).split(".")))
