"""A small CLIP on disk, as the hub has them; real pictures; what transformers makes of both."""

import functools
import json
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
import skimage.data
from flax import serialization, traverse_util
from PIL import Image
from safetensors.numpy import save_file

from fedvlr_jax.server import clip
from fedvlr_jax.server.clip_model import ClipConfig, TextConfig, VisionConfig

# Made by tests/server/make_clip_reference.py.
REFERENCE = Path(__file__).with_name("clip_reference.npz")
TITLES = [
    "A cup of coffee",
    "",
    "Ein Gerät für Kaffee: 咖啡",
    "word " * 200,
    "The title is missing.",
]
# Settings in which published CLIPs differ: OpenAI's first, with the end of texts as old files
# have it, then LAION's.
_TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "vocab_size": 30}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "image_size": 21}
_OPENAI = {"num_attention_heads": 4}
_LAION = {"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 0.01}
CONFIGS = {
    "openai": ClipConfig(
        TextConfig(**_TEXT, **_OPENAI, max_position_embeddings=9, eos_token_id=2),
        VisionConfig(**_VISION, **_OPENAI, patch_size=7),
        projection_dim=16,
    ),
    "laion": ClipConfig(
        TextConfig(**_TEXT, **_LAION, max_position_embeddings=11, eos_token_id=5),
        VisionConfig(**_VISION, **_LAION, patch_size=8),
        projection_dim=12,
    ),
}
# Texts of several lengths; behind the end, the end again or something else fills up.
TOKENS = np.array(
    [
        [27, 1, 5, 29, 29, 29, 29, 29, 29],
        [27, 4, 3, 2, 6, 7, 28, 5, 29],
        [27, 29, 5, 0, 0, 0, 0, 0, 0],
        [27, 5, 9, 5, 29, 1, 5, 0, 29],
    ]
)
THERE = np.arange(9) < np.array([4, 9, 3, 7])[:, None]


def shapes_found_once():
    """Until it is left, models that are alike are traced once for the shapes of their weights."""
    return mock.patch.object(clip, "shapes", functools.cache(clip.shapes))


def pixels():
    """Pictures as they come out of normalizing."""
    return np.random.default_rng(8).standard_normal((3, 3, 21, 21), np.float32)


def drawn(config):
    """Weights of which every single one matters, by a rule."""
    values = {}
    for k, (path, shape) in enumerate(clip.shapes(config).items()):
        normal = np.random.default_rng(k).standard_normal(shape, np.float32)
        values[path] = normal * np.float32(0.3) + np.float32(path[-1] == "scale")
    return traverse_util.unflatten_dict(values)


def pictures():
    """Real photographs of different sizes, one of them grey.

    The tall one is as wide as the model's input: versions of Pillow resize tall ones differently.
    """
    names = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "page", "text")
    found = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    return [*found, found[0].crop((100, 0, 164, 500)), found[1].crop((0, 50, 600, 99))]


def write(folder: Path, config: ClipConfig, params: dict) -> None:
    """Write a model with Flax weights, as `FlaxCLIPModel.save_pretrained` does."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **asdict(config)}))
    tree = traverse_util.unflatten_dict(traverse_util.flatten_dict(params, sep="."), sep=".")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))


def save(folder: Path, seed: int = 0) -> Path:
    """Write a tiny model and its processor, with the tokenizer in its old files and its new one."""
    parts = clip.random_parts("random:tiny", seed)
    write(folder, parts.config, parts.params)
    parts.pictures.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(parts.tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def as_pytorch(folder: Path) -> None:
    """Turn the Flax weights into the safetensors that PyTorch models are published as."""
    flax = folder / "flax_model.msgpack"
    found = {}
    for path, values in traverse_util.flatten_dict(
        serialization.msgpack_restore(flax.read_bytes())
    ).items():
        *place, name = path
        if name == "kernel":
            values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
        name = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(name, name)
        found[".".join([*place, name])] = np.array(values, order="C")
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    flax.unlink()


def edit(folder: Path, name: str, **changes) -> None:
    """Change entries of a JSON file."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
