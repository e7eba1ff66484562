"""A small CLIP on disk, as the hub has them, and real pictures."""

import json
from pathlib import Path

import numpy as np
import skimage.data
from flax import traverse_util
from PIL import Image
from safetensors.numpy import save_file
from transformers import FlaxCLIPModel

from fedvlr_jax.server import clip


def pictures():
    """Real photographs of different sizes, one of them grey."""
    names = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "page", "text")
    found = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    return [*found, found[0].crop((100, 0, 180, 500)), found[1].crop((0, 50, 600, 99))]


def save(folder: Path, seed: int = 0) -> Path:
    """Write a tiny model with Flax weights and its processor, as `save_pretrained` does."""
    config, processor = clip._random_parts("random:tiny")
    model, params = clip._random_model(config, seed)
    model.save_pretrained(folder, params=params)
    processor.save_pretrained(folder)
    return folder


def as_pytorch(folder: Path) -> None:
    """Turn the Flax weights into the safetensors that PyTorch models are published as."""
    model = FlaxCLIPModel.from_pretrained(folder)
    found = {}
    for path, leaf in traverse_util.flatten_dict(model.params).items():
        *place, name = path
        values = np.asarray(leaf)
        if name == "kernel":
            values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
        name = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(name, name)
        found[".".join([*place, name])] = values.copy(order="C")
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "flax_model.msgpack").unlink()


def edit(folder: Path, name: str, **changes) -> None:
    """Change entries of a JSON file."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
