"""The frozen vision-language model: CLIP (Radford et al., 2021) as `FlaxCLIPModel`.

This is the only file that touches transformers, whose Flax models are deprecated: to put another
encoder in their place, write another file with a `Clip` in it. Importing transformers takes many
seconds, so it is done where it is used.
"""

import contextlib
import hashlib
import json
import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from flax import traverse_util
from jaxtyping import Array, Float, Int, Num, UInt8

from fedvlr_jax.data.text import shown
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import read_json
from fedvlr_jax.foreign import short, words_of
from fedvlr_jax.host import host_bytes

RANDOM = "random:"
# Sizes of the encoders with random weights: (hidden, layers, heads) of both towers.
_RANDOM_SIZES = {
    "tiny": {
        "image": 64,
        "patch": 16,
        "vision": (128, 2, 4),
        "text": (128, 2, 4),
        "width": 128,
    },
    "vit-b-32": {
        "image": 224,
        "patch": 32,
        "vision": (768, 12, 12),
        "text": (512, 12, 8),
        "width": 512,
    },
}
_RANDOM_NAMES = ", ".join(RANDOM + size for size in _RANDOM_SIZES)
_MAX_TOKENS = 77
_SAFETENSORS = "model.safetensors"
_WEIGHTS = ("flax_model.msgpack", _SAFETENSORS)
# Larger ones than any CLIP has are a mistake, and would take time and memory before it is seen.
_MOST_LAYERS = 1_000
_LONGEST_EDGE = 4_096
# What of a picture processor decides the pixels.
_PICTURE_SETTINGS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


@dataclass(frozen=True)
class Clip:
    """A frozen encoder.

    Attributes:
        name: what it was loaded from.
        pretrained: False for random weights.
        digest: SHA-256 over weights, configuration, picture processing and vocabulary.
        width: of an embedding.
        precision: what it computes in.
        params: the weights, to be handed to `embed_images` and `embed_texts`.
        pixels: a picture in RGB -> resized and cropped, (3, height, width).
        tokens: a text -> its token ids and attention mask, (2, length), cut at the model's length.
        embed_images: params, a stack of `pixels` -> rows of norm 1, float32.
        embed_texts: params, a stack of `tokens` -> rows of norm 1, float32.
    """

    name: str
    pretrained: bool
    digest: str
    width: int
    precision: str
    params: Any
    pixels: Callable[[PIL.Image.Image], UInt8[np.ndarray, "3 height width"]]
    tokens: Callable[[str], Int[np.ndarray, "2 length"]]
    embed_images: Callable[[Any, Num[Array, "batch 3 height width"]], Float[Array, "batch dim"]]
    embed_texts: Callable[[Any, Int[Array, "batch 2 length"]], Float[Array, "batch dim"]]

    def describe(self) -> dict[str, Any]:
        """What a data set's metadata says about its encoder."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "sha256": self.digest,
            "width": self.width,
            "precision": self.precision,
        }


def load(name: str, precision: str = "float32", seed: int = 0) -> Clip:
    """Load CLIP.

    Args:
        name: a local folder as `save_pretrained` writes it (Flax weights or safetensors), a hub
            id, or `random:tiny` / `random:vit-b-32` for random weights of that size.
        precision: one of `names.PRECISIONS`.
        seed: of random weights.

    Raises:
        UserError: nothing there, or something else than a whole CLIP.
    """
    with _quiet():
        if name.startswith(RANDOM):
            config, processor = _random_parts(name)
            model, params = _random_model(config, seed)
            return _assemble(name, model, params, processor, precision)
        source = _source(name)
        try:
            if Path(source).is_dir():
                _check_files(Path(source))
            model, params, processor = _pretrained(name, source)
            clip = _assemble(name, model, params, processor, precision)
            _check_whole(clip, model.config, processor)
        except UserError:
            raise
        except Exception as error:  # transformers raises anything on a folder that is not whole
            raise UserError(f"--clip={name}: cannot be loaded ({words_of(error)})") from None
        return clip


def _source(name: str) -> str:
    """The folder or hub id that `name` is."""
    local = Path(name).expanduser()
    if not local.is_dir() and (name.count("/") != 1 or name.startswith(("/", ".", "~"))):
        raise UserError(
            f"--clip={name}: no such folder, expected one, or a hub id like "
            f"openai/clip-vit-base-patch32, or one of {_RANDOM_NAMES}"
        )
    if local.is_dir() and not (local / "config.json").is_file():
        raise UserError(f"--clip={name}: no config.json there, expected a whole CLIP folder")
    return str(local) if local.is_dir() else name


def _check_files(folder: Path) -> None:
    """Say which part of a CLIP a folder has not; transformers would speak of its own settings."""
    for what, files in (
        ("picture processor", [["preprocessor_config.json"]]),
        ("tokenizer", [["tokenizer.json"], ["vocab.json", "merges.txt"]]),
        ("weights", [[f"{name}{end}"] for name in _WEIGHTS for end in ("", ".index.json")]),
    ):
        if not any(all((folder / name).is_file() for name in together) for together in files):
            names = " or ".join(" and ".join(together) for together in files)
            raise ValueError(f"no {what} there, expected {names}")
    for name in _WEIGHTS:
        for part in _parts(folder, name):
            if not (folder / part).is_file():  # to open a pipe would wait for ever
                raise ValueError(
                    f"{part} is missing or no plain file, expected a part of the weights that "
                    f"{name}.index.json names"
                )


def _parts(folder: Path, name: str) -> list[str]:
    """The files over which weights are split, as their index tells; none without an index.

    Raises:
        ValueError: the index is malformed, or names files elsewhere.
        UserError: it is no JSON.
    """
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    content = read_json(index)
    parts = content.get("weight_map")
    if not isinstance(content.get("metadata"), dict) or not isinstance(parts, dict) or not parts:
        raise ValueError(f"{index.name} has no weight_map and metadata, expected both")
    for part in parts.values():
        if not isinstance(part, str) or Path(part).name != part:
            raise ValueError(
                f"{index.name} names {shown(str(part))}, expected a file of the same folder"
            )
    return sorted(set(parts.values()))


def _pretrained(name: str, source: str) -> tuple[Any, dict, Any]:
    """Model, weights and processor of a folder or hub id."""
    # Not at the top of the file: see there.
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPProcessor,
        CLIPTokenizerFast,
        FlaxCLIPModel,
    )

    class Unset(FlaxCLIPModel):
        """A model whose weights are NaN until they are loaded, not random."""

        def init_weights(self, rng: Any, input_shape: tuple, params: Any = None) -> Any:  # noqa: ARG002
            shapes = jax.eval_shape(lambda: FlaxCLIPModel.init_weights(self, rng, input_shape))
            return jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), shapes)

    stored, _ = CLIPConfig.get_config_dict(source)
    if stored.get("model_type") != "clip":
        raise ValueError(f"its model_type is {stored.get('model_type')}, expected clip")
    config = CLIPConfig.from_dict(stored)
    _check_sizes(config)
    # The fast picture processor needs torch; the fast tokenizer needs nothing.
    processor = CLIPProcessor(
        CLIPImageProcessor.from_pretrained(source), CLIPTokenizerFast.from_pretrained(source)
    )
    empty = FlaxCLIPModel(config, _do_init=False)
    needed = sum(4 * math.prod(x.shape) for x in jax.tree.leaves(empty.params_shape_tree))
    if needed > host_bytes():
        raise ValueError(
            f"its weights need {needed / 1e9:,.1f} GB of memory, this machine has "
            f"{host_bytes() / 1e9:,.1f} GB"
        )
    try:
        params = Unset.from_pretrained(source, config=config).params
    except (OSError, NotImplementedError):
        shards = _shards(source)
        if not shards:
            raise
        params = _joined(shards, Unset(config))
    _check_weights(name, params)
    _check_layers(Path(source), config)
    return empty, params, processor


def _shards(source: str) -> list[str]:
    """The files of weights that are split over several in safetensors, which Flax cannot load."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file
    from transformers.utils.hub import get_checkpoint_shard_files

    index = cached_file(
        source,
        SAFE_WEIGHTS_INDEX_NAME,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return get_checkpoint_shard_files(source, index)[0] if index else []


def _joined(shards: list[str], model: Any) -> dict:
    """The weights of all `shards`, by the names that they have in `model`."""
    from safetensors import safe_open
    from transformers.modeling_flax_pytorch_utils import convert_pytorch_state_dict_to_flax

    found = {}
    for path in shards:
        with safe_open(path, framework="flax") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = traverse_util.flatten_dict(model.params)
    converted = traverse_util.flatten_dict(convert_pytorch_state_dict_to_flax(found, model))
    weights |= {path: leaf for path, leaf in converted.items() if path in weights}
    return traverse_util.unflatten_dict(weights)


def _check_sizes(config: Any) -> None:
    """Refuse sizes that no CLIP has, before anything of that size is made."""
    for part, names in (
        (config.text_config, ("vocab_size", "max_position_embeddings")),
        (config.vision_config, ("image_size", "patch_size")),
    ):
        for name in (*names, "hidden_size", "intermediate_size", "num_hidden_layers"):
            _expect(getattr(part, name), f"{part.model_type}'s {name}", 2**31)
        _expect(part.num_hidden_layers, f"{part.model_type}'s num_hidden_layers", _MOST_LAYERS)
        heads = part.num_attention_heads
        _expect(heads, f"{part.model_type}'s num_attention_heads", part.hidden_size)
        if part.hidden_size % heads:
            raise ValueError(
                f"{part.model_type} has a hidden_size of {part.hidden_size} and {heads} heads, "
                "expected a multiple of the heads"
            )
    _expect(config.projection_dim, "projection_dim", 2**31)
    _expect(config.vision_config.image_size, "image_size", _LONGEST_EDGE)
    _expect(config.vision_config.patch_size, "patch_size", config.vision_config.image_size)


def _expect(value: Any, name: str, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(
            f"{name} is {short(value, 40)}, expected a whole number from 1 to {most:,}"
        )


def _check_weights(name: str, params: dict) -> None:
    flat = traverse_util.flatten_dict(params)
    missing = sorted(path for path, leaf in flat.items() if np.isnan(leaf).all())
    if missing:
        first = "/".join(missing[0])
        raise UserError(
            f"--clip={name}: {len(missing)} weights are missing, the first is {first}; expected "
            "the whole CLIP, both towers and projections"
        )
    broken = sorted(path for path, leaf in flat.items() if not np.isfinite(leaf).all())
    if broken:
        first = "/".join(broken[0])
        raise UserError(
            f"--clip={name}: {len(broken)} weights hold NaN or inf, the first is {first}; the "
            "files are damaged"
        )


def _check_layers(folder: Path, config: Any) -> None:
    """Refuse a config.json with fewer layers than the weights: the others would be left out."""
    from safetensors import safe_open

    single = [_SAFETENSORS] if (folder / _SAFETENSORS).is_file() else []
    for path in (folder / part for part in single or _parts(folder, _SAFETENSORS)):
        with safe_open(path, framework="flax") as file:
            names = list(file.keys())
        for part in (config.text_config, config.vision_config):
            before = f"{part.model_type.removeprefix('clip_')}.encoder.layers."
            stored = {int(name.split(".")[3]) for name in names if name.startswith(before)}
            if max(stored, default=0) >= part.num_hidden_layers:
                raise ValueError(
                    f"{path.name} has layer {max(stored)} of {part.model_type}, but "
                    f"num_hidden_layers in config.json is {part.num_hidden_layers}"
                )


def _check_whole(clip: Clip, config: Any, processor: Any) -> None:
    """Refuse a picture processor or a tokenizer that is another model's."""
    pictures = processor.image_processor
    for edge in (*pictures.size.values(), *(pictures.crop_size or {}).values()):
        _expect(edge, "an edge in preprocessor_config.json", _LONGEST_EDGE)
    side = config.vision_config.image_size
    for size in ((32, 32), (32, 64), (64, 32)):
        *_, height, width = clip.pixels(PIL.Image.new("RGB", size)).shape
        if (height, width) != (side, side):
            raise ValueError(
                f"its preprocessor_config.json turns a picture of {size[0]} x {size[1]} into "
                f"one of {width} x {height}, but the model takes {side} x {side}"
            )
    for name in ("image_mean", "image_std"):
        if np.shape(getattr(pictures, name)) not in ((1,), (3,)):
            raise ValueError(f"{name} in preprocessor_config.json is not one number a colour")
    if not np.isfinite([*map(float, (*pictures.image_mean, *pictures.image_std))]).all():
        raise ValueError("image_mean or image_std in preprocessor_config.json is not finite")
    if pictures.do_normalize and 0 in pictures.image_std:
        raise ValueError("image_std in preprocessor_config.json holds 0")
    vocabulary, known = processor.tokenizer.get_vocab(), config.text_config.vocab_size
    if max(vocabulary.values()) >= known:
        raise ValueError(
            f"its tokenizer has tokens up to {max(vocabulary.values())}, but "
            f"the model knows {known}"
        )
    tokens = clip.tokens("a")
    # Models from before transformers 4.31 say 2 and take the largest token for the end of a text.
    said = config.text_config.eos_token_id
    end = int(tokens[0].max()) if said == 2 else said
    if processor.tokenizer.eos_token_id != end or end not in tokens[0]:
        raise ValueError(
            f"its tokenizer ends a text with token {processor.tokenizer.eos_token_id}, the model "
            f"expects {end}"
        )
    for embed, batch in ((clip.embed_images, clip.pixels), (clip.embed_texts, clip.tokens)):
        example = PIL.Image.new("RGB", (32, 32)) if batch is clip.pixels else "a"
        jax.eval_shape(embed, clip.params, batch(example)[None])


def _random_parts(name: str) -> tuple[Any, Any]:
    """Configuration and processor of a model with random weights; nothing is downloaded."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPProcessor, CLIPTokenizerFast

    size = _RANDOM_SIZES.get(name.removeprefix(RANDOM))
    if size is None:
        raise UserError(f"--clip={name}: expected one of {_RANDOM_NAMES}")
    vocabulary = _byte_vocabulary()
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}

    def tower(which: str) -> dict[str, int]:
        hidden, layers, heads = size[which]
        return {
            "hidden_size": hidden,
            "intermediate_size": 4 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": size["width"],
        }

    config = CLIPConfig(
        text_config=tower("text")
        | ends
        | {"vocab_size": len(vocabulary), "max_position_embeddings": _MAX_TOKENS},
        vision_config=tower("vision") | {"image_size": size["image"], "patch_size": size["patch"]},
        projection_dim=size["width"],
    )
    with tempfile.TemporaryDirectory() as folder:
        vocabulary_file, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = CLIPTokenizerFast(
            vocab_file=str(vocabulary_file),
            merges_file=str(merges),
            model_max_length=_MAX_TOKENS,
        )
    edge = size["image"]
    pictures = CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
    )
    return config, CLIPProcessor(pictures, tokenizer)


def _byte_vocabulary() -> dict[str, int]:
    """CLIP's vocabulary without any merge: every byte, alone and at the end of a word."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(len(rest))]
    tokens = letters + [f"{letter}</w>" for letter in letters]
    return {token: k for k, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _random_model(config: Any, seed: int) -> tuple[Any, dict]:
    """A model with random weights that keep the size of what they pass on (variance 1 / fan-in).

    CLIP's own initial weights are made for training: an untrained tower of those hardly looks at
    its input, and a dry run should have features that tell items apart.
    """
    from transformers import FlaxCLIPModel

    model = FlaxCLIPModel(config, _do_init=False)
    drawn = {}
    for k, (path, like) in enumerate(
        sorted(traverse_util.flatten_dict(model.params_shape_tree).items())
    ):
        normal = np.random.default_rng([seed, k]).standard_normal(like.shape, np.float32)
        match path:
            case (*_, "kernel"):
                drawn[path] = normal / math.sqrt(math.prod(like.shape[:-1]))
            case (*_, "token_embedding", "embedding"):
                drawn[path] = normal
            case (*_, "bias"):
                drawn[path] = np.zeros(like.shape, np.float32)
            case (*_, "scale"):
                drawn[path] = np.ones(like.shape, np.float32)
            case ("logit_scale",):
                drawn[path] = np.float32(config.logit_scale_init_value)
            case _:  # of positions and of the class token
                drawn[path] = normal * np.float32(0.02)
    return model, traverse_util.unflatten_dict(drawn)


def _assemble(name: str, model: Any, params: Any, processor: Any, precision: str) -> Clip:
    config, pictures = model.config, processor.image_processor
    digest = _digest(config, params, processor)
    if precision == "bfloat16":
        params = model.to_bf16(params)
    module = type(model)(config, dtype=jnp.dtype(precision), _do_init=False)
    length = config.text_config.max_position_embeddings
    scale = pictures.rescale_factor if pictures.do_rescale else 1.0
    normal = pictures.do_normalize
    mean = np.array(pictures.image_mean if normal else (0.0,) * 3, np.float32)[:, None, None]
    deviation = np.array(pictures.image_std if normal else (1.0,) * 3, np.float32)[:, None, None]

    tokenizing = threading.Lock()

    def pixels(picture: PIL.Image.Image) -> np.ndarray:
        # Scaling and normalizing are left to the device: 8 bits a channel are a quarter to move.
        return pictures.preprocess(
            np.asarray(picture),
            do_rescale=False,
            do_normalize=False,
            do_convert_rgb=False,
            input_data_format="channels_last",
            return_tensors="np",
        )["pixel_values"][0]

    def tokens(text: str) -> np.ndarray:
        with tokenizing:  # a fast tokenizer keeps its padding in itself
            found = processor.tokenizer(
                text, padding="max_length", truncation=True, max_length=length
            )
        return np.array([found["input_ids"], found["attention_mask"]], np.int32)

    def embed_images(params: Any, batch: Array) -> Array:
        scaled = (batch.astype(jnp.float32) * scale - mean) / deviation
        return _unit(module.get_image_features(scaled, params=params))

    def embed_texts(params: Any, batch: Array) -> Array:
        return _unit(module.get_text_features(batch[:, 0], batch[:, 1], params=params))

    return Clip(
        name=name,
        pretrained=not name.startswith(RANDOM),
        digest=digest,
        width=config.projection_dim,
        precision=precision,
        params=params,
        pixels=pixels,
        tokens=tokens,
        embed_images=embed_images,
        embed_texts=embed_texts,
    )


def _unit(rows: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    rows = rows.astype(jnp.float32)
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def _digest(config: Any, params: Any, processor: Any) -> str:
    """SHA-256 of all that decides the features, whatever files it came from."""
    digest = hashlib.sha256()
    for path, leaf in sorted(traverse_util.flatten_dict(params).items()):
        values = np.asarray(leaf, np.float32)
        digest.update(f"{'/'.join(path)}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    pictures = processor.image_processor
    for part in (
        {name: getattr(config.text_config, name) for name in ("num_attention_heads", "hidden_act")},
        {name: getattr(config.vision_config, name) for name in ("patch_size", "hidden_act")},
        {name: getattr(pictures, name) for name in _PICTURE_SETTINGS},
        processor.tokenizer.get_vocab(),
    ):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' advice (it deprecates what is used here) off the user's terminal."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    before = [(part, part.get_verbosity()) for part in (logging, hub_logging)]
    for part, _ in before:
        part.set_verbosity_error()
    try:
        yield
    finally:
        for part, verbosity in before:
            part.set_verbosity(verbosity)
