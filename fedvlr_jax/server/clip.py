"""The frozen vision-language model: a CLIP's files read, checked and put together.

This is the only file that touches transformers (tokenizer and picture processor), safetensors and
the hub: to put another encoder in CLIP's place, write another file with a `Clip` in it. Importing
transformers takes many seconds, so it is done where it is used.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from flax import serialization, traverse_util
from jaxtyping import Array, Float, Int, Num, UInt8

from fedvlr_jax.data.text import shown
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import read_json
from fedvlr_jax.foreign import words_of
from fedvlr_jax.host import host_bytes
from fedvlr_jax.server.clip_model import (
    LONGEST_EDGE,
    ClipConfig,
    TextConfig,
    TextTower,
    VisionConfig,
    VisionTower,
    check_whole,
    shapes,
)

RANDOM = "random:"
# Sizes of the encoders with random weights; (hidden, layers, heads) of both towers.
_RANDOM_SIZES = {
    "tiny": {"image": 64, "patch": 16, "vision": (128, 2, 4), "text": (128, 2, 4), "width": 128},
    "vit-b-32": {
        "image": 224,
        "patch": 32,
        "vision": (768, 12, 12),
        "text": (512, 12, 8),
        "width": 512,
    },
}
_RANDOM_NAMES = ", ".join(RANDOM + size for size in _RANDOM_SIZES)
_LOGIT_SCALE = 2.6592  # as CLIP's training begins
_WEIGHTS = _FLAX, _SAFETENSORS = "flax_model.msgpack", "model.safetensors"
# What a CLIP consists of beside its weights, as patterns of the hub.
_OTHER_FILES = ("*.json", "merges.txt")
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


@dataclass(frozen=True)
class Parts:
    """What a CLIP is made of: its configuration, float32 weights, and transformers' two parts."""

    config: ClipConfig
    params: dict[str, Any]
    pictures: Any
    tokenizer: Any

    @property
    def settings(self) -> dict[str, Any]:
        """What of the picture processor decides the pixels."""
        known = self.pictures.to_dict()
        return {name: known.get(name) for name in _PICTURE_SETTINGS}


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
    if name.startswith(RANDOM):
        return _assemble(name, random_parts(name, seed), precision)
    local = _local(name)
    try:
        parts = _stored_parts(local or _downloaded(name))
        clip = _assemble(name, parts, precision)
        _check_whole(clip, parts)
        return clip
    except Exception as error:  # transformers raises anything on a folder that is not whole
        raise UserError(f"--clip={name}: cannot be loaded ({words_of(error)})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' advice (it misses torch, which is not used) off the user's terminal."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    before = [(logger, logger.get_verbosity()) for logger in (logging, hub_logging)]
    for logger, _ in before:
        logger.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, verbosity in before:
            logger.set_verbosity(verbosity)


def _local(name: str) -> Path | None:
    """The folder that `name` is; None for a hub id."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    if name.count("/") == 1 and not name.startswith(("/", ".", "~")):
        return None
    raise UserError(
        f"--clip={name}: no such folder, expected one, or a hub id like "
        f"openai/clip-vit-base-patch32, or one of {_RANDOM_NAMES}"
    )


def _downloaded(name: str) -> Path:
    """The folder where a CLIP of the hub is kept, with weights of one format."""
    from huggingface_hub import snapshot_download  # not at the top of the file: see there

    for weights in (_FLAX, _SAFETENSORS):
        stem, end = weights.split(".")
        patterns = [weights, f"{stem}-*.{end}"]
        folder = Path(snapshot_download(name, allow_patterns=[*_OTHER_FILES, *patterns]))
        if any(file for pattern in patterns for file in folder.glob(pattern)):
            break
    return folder


@_quiet()
def _stored_parts(folder: Path) -> Parts:
    """Read a CLIP from a folder.

    Raises:
        ValueError: a part is missing, or does not fit the others.
    """
    _check_files(folder)
    config = ClipConfig.stored(read_json(folder / "config.json"))
    needed = 4 * sum(math.prod(shape) for shape in shapes(config).values())
    if needed > host_bytes():
        raise ValueError(
            f"its weights need {needed / 1e9:,.1f} GB of memory, this machine has "
            f"{host_bytes() / 1e9:,.1f} GB"
        )
    pictures, tokenizer = _processors()
    return Parts(
        config,
        _fitting(_stored_weights(folder), config),
        pictures.from_pretrained(folder),
        tokenizer.from_pretrained(folder),
    )


def _processors() -> tuple[type, type]:
    """Transformers' picture processor without torch, by its names in 4 and in 5, and tokenizer."""
    import transformers  # not at the top of the file: see there

    pictures = getattr(transformers, "CLIPImageProcessorPil", None)
    return pictures or transformers.CLIPImageProcessor, transformers.CLIPTokenizerFast


def _check_files(folder: Path) -> None:
    """Say which part of a CLIP a folder has not; transformers would speak of its own settings."""
    for what, files in (
        ("configuration", [["config.json"]]),
        ("picture processor", [["preprocessor_config.json"], ["processor_config.json"]]),
        ("tokenizer", [["tokenizer.json"], ["vocab.json", "merges.txt"]]),
        ("weights", [[f"{name}{end}"] for name in _WEIGHTS for end in ("", ".index.json")]),
    ):
        if not any(all((folder / name).is_file() for name in option) for option in files):
            names = " or ".join(map(" and ".join, files))
            raise ValueError(f"no {what} there, expected {names}")


def _stored_weights(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a folder, by their names with dots as Flax has them; of two formats Flax's."""
    for name, read in ((_FLAX, _from_flax), (_SAFETENSORS, _from_pytorch)):
        files = [name] if (folder / name).is_file() else _files_of(folder, name)
        if files:
            weights = (weight for file in files for weight in read(folder / file))
            return {key: np.asarray(value) for key, value in weights}
    raise AssertionError("_check_files has found some")


def _files_of(folder: Path, name: str) -> list[str]:
    """The files over which weights are split, as their index tells; none without an index.

    Raises:
        ValueError: the index is malformed, or names files that are elsewhere or not there.
    """
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    content = read_json(index)
    files = content.get("weight_map")
    if not isinstance(content.get("metadata"), dict) or not isinstance(files, dict) or not files:
        raise ValueError(f"{index.name} has no weight_map and metadata, expected both")
    for file in files.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(
                f"{index.name} names {shown(str(file))}, expected a file of the same folder"
            )
        if not (folder / file).is_file():  # to open a pipe would wait for ever
            raise ValueError(
                f"{file} is missing or no plain file, expected a part of the weights that "
                f"{index.name} names"
            )
    return sorted(set(files.values()))


def _from_flax(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    tree = serialization.msgpack_restore(path.read_bytes())
    yield from traverse_util.flatten_dict(tree, sep=".").items()


def _from_pytorch(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Weights of safetensors, which are transposed and called otherwise than Flax's."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            module, _, leaf = name.rpartition(".")
            value = file.get_tensor(name)
            if leaf != "weight":
                yield name, value
            elif value.ndim == 1:
                yield f"{module}.scale", value
            elif module.endswith(("token_embedding", "position_embedding")):
                yield f"{module}.embedding", value
            else:
                axes = (2, 3, 1, 0) if value.ndim == 4 else None
                yield f"{module}.kernel", value.transpose(axes)


def _fitting(stored: dict[str, np.ndarray], config: ClipConfig) -> dict[str, Any]:
    """The weights that a model of this configuration has, in float32.

    Raises:
        ValueError: one is missing, of another shape or not finite, or belongs to a further layer.
    """
    expected = shapes(config)
    names = {".".join(path): path for path in expected}
    if missing := sorted(names.keys() - stored.keys()):
        raise ValueError(
            f"{len(missing)} weights are missing, the first is {missing[0]}; expected the whole "
            "CLIP, both towers and projections"
        )
    if more := sorted(name for name in stored.keys() - names.keys() if ".layers." in name):
        raise ValueError(
            f"{more[0]} is among the weights, but config.json has no such layer; is its "
            "num_hidden_layers too small?"
        )
    params = {}
    for name, path in names.items():
        if stored[name].shape != expected[path]:
            raise ValueError(
                f"{name} has the shape {stored[name].shape}, config.json says {expected[path]}"
            )
        params[path] = stored[name].astype(np.float32, copy=False)
    if broken := sorted(".".join(x) for x, leaf in params.items() if not np.isfinite(leaf).all()):
        raise ValueError(
            f"{len(broken)} weights hold NaN or inf, the first is {broken[0]}; the files are "
            "damaged"
        )
    return traverse_util.unflatten_dict(params)


def _check_whole(clip: Clip, parts: Parts) -> None:
    """Refuse a picture processor or a tokenizer that is another model's."""
    settings = parts.settings
    for edge in (*settings["size"].values(), *(settings["crop_size"] or {}).values()):
        check_whole(edge, "an edge in preprocessor_config.json", LONGEST_EDGE)
    side = parts.config.vision_config.image_size
    for size in ((32, 32), (32, 64), (64, 32)):
        *_, height, width = clip.pixels(PIL.Image.new("RGB", size)).shape
        if (height, width) != (side, side):
            raise ValueError(
                f"its preprocessor_config.json turns a picture of {size[0]} x {size[1]} into "
                f"one of {width} x {height}, but the model takes {side} x {side}"
            )
    for name in ("image_mean", "image_std"):
        if np.shape(settings[name]) not in ((1,), (3,)):
            raise ValueError(f"{name} in preprocessor_config.json is not one number a colour")
        if not np.isfinite([*map(float, settings[name])]).all():
            raise ValueError(f"{name} in preprocessor_config.json is not finite")
    if settings["do_normalize"] and 0 in settings["image_std"]:
        raise ValueError("image_std in preprocessor_config.json holds 0")
    sizes, last = parts.config.text_config, max(parts.tokenizer.get_vocab().values())
    if last >= sizes.vocab_size:
        raise ValueError(
            f"its tokenizer has tokens up to {last}, but the model knows {sizes.vocab_size}"
        )
    tokens = jnp.array(clip.tokens("a")[0])
    if tokens[sizes.ends(tokens)] != parts.tokenizer.eos_token_id:
        raise ValueError(
            f"its tokenizer ends a text with token {parts.tokenizer.eos_token_id}, the model "
            f"expects {sizes.eos_token_id}"
        )


@_quiet()
def random_parts(name: str, seed: int) -> Parts:
    """A CLIP with random weights; nothing is downloaded."""
    size = _RANDOM_SIZES.get(name.removeprefix(RANDOM))
    if size is None:
        raise UserError(f"--clip={name}: expected one of {_RANDOM_NAMES}")
    vocabulary, edge = _byte_vocabulary(), size["image"]

    def tower(which: str) -> dict[str, int]:
        hidden, layers, heads = size[which]
        return {
            "hidden_size": hidden,
            "intermediate_size": 4 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
        }

    text = TextConfig(
        **tower("text"), vocab_size=len(vocabulary), eos_token_id=vocabulary["<|endoftext|>"]
    )
    vision = VisionConfig(**tower("vision"), image_size=edge, patch_size=size["patch"])
    config = ClipConfig(text, vision, size["width"])
    pictures, tokenizer = _processors()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        tokens = tokenizer.from_pretrained(folder, model_max_length=text.max_position_embeddings)
    return Parts(
        config,
        _random_params(config, seed),
        pictures(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}),
        tokens,
    )


def _byte_vocabulary() -> dict[str, int]:
    """CLIP's vocabulary without any merge: every byte, alone and at the end of a word."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(len(rest))]
    tokens = letters + [f"{letter}</w>" for letter in letters]
    return {token: k for k, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _random_params(config: ClipConfig, seed: int) -> dict[str, Any]:
    """Random weights that keep the size of what they pass on (variance 1 / fan-in).

    CLIP's own initial weights are made for training: an untrained tower of those hardly looks at
    its input, and a dry run should have features that tell items apart.
    """
    drawn = {}
    for k, (path, shape) in enumerate(shapes(config).items()):
        normal = np.random.default_rng([seed, k]).standard_normal(shape, np.float32)
        match path:
            case (_, "kernel"):
                drawn[path] = normal / math.sqrt(math.prod(shape[:-1]))
            case ("text_model.embeddings.token_embedding", _):
                drawn[path] = normal
            case (_, "bias"):
                drawn[path] = np.zeros(shape, np.float32)
            case (_, "scale"):
                drawn[path] = np.ones(shape, np.float32)
            case ("logit_scale",):
                drawn[path] = np.float32(_LOGIT_SCALE)
            case _:  # of positions and of the class token
                drawn[path] = normal * np.float32(0.02)
    return traverse_util.unflatten_dict(drawn)


def _assemble(name: str, parts: Parts, precision: str) -> Clip:
    config, settings, dtype = parts.config, parts.settings, jnp.dtype(precision)
    length = config.text_config.max_position_embeddings
    scale = settings["rescale_factor"] if settings["do_rescale"] else 1.0
    normal = settings["do_normalize"]
    mean = np.array(settings["image_mean"] if normal else (0.0,) * 3, np.float32)[:, None, None]
    deviation = np.array(settings["image_std"] if normal else (1.0,) * 3, np.float32)[:, None, None]

    tokenizing = threading.Lock()

    def pixels(picture: PIL.Image.Image) -> np.ndarray:
        # Scaling and normalizing are left to the device: 8 bits a channel are a quarter to move.
        return parts.pictures.preprocess(
            np.asarray(picture),
            do_rescale=False,
            do_normalize=False,
            do_convert_rgb=False,
            input_data_format="channels_last",
            return_tensors="np",
        )["pixel_values"][0]

    def tokens(text: str) -> np.ndarray:
        with tokenizing:  # a fast tokenizer keeps its padding in itself
            made = parts.tokenizer(text, padding="max_length", truncation=True, max_length=length)
        return np.array([made["input_ids"], made["attention_mask"]], np.int32)

    def embed_images(params: Any, batch: Array) -> Array:
        scaled = (batch.astype(jnp.float32) * scale - mean) / deviation
        return _unit(VisionTower(config, dtype).apply({"params": params}, scaled))

    def embed_texts(params: Any, batch: Array) -> Array:
        embedded = TextTower(config, dtype).apply({"params": params}, batch[:, 0], batch[:, 1])
        return _unit(embedded)

    return Clip(
        name=name,
        pretrained=not name.startswith(RANDOM),
        digest=_digest(parts),
        width=config.projection_dim,
        precision=precision,
        params=jax.tree.map(lambda x: x.astype(dtype, copy=False), parts.params),
        pixels=pixels,
        tokens=tokens,
        embed_images=embed_images,
        embed_texts=embed_texts,
    )


def _unit(rows: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    rows = rows.astype(jnp.float32)
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def _digest(parts: Parts) -> str:
    """SHA-256 of all that decides the features, whatever files it came from."""
    digest = hashlib.sha256()
    params = traverse_util.flatten_dict(parts.params)
    for path, shape in shapes(parts.config).items():
        digest.update(f"{'/'.join(path).replace('.', '/')}{shape}".encode())
        digest.update(np.ascontiguousarray(params[path]).data)
    text, vision = parts.config.text_config, parts.config.vision_config
    for part in (
        {"num_attention_heads": text.num_attention_heads, "hidden_act": text.hidden_act},
        {"patch_size": vision.patch_size, "hidden_act": vision.hidden_act},
        parts.settings,
        parts.tokenizer.get_vocab(),
    ):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()
