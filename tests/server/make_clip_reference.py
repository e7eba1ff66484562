"""Write what transformers' own Flax CLIP computes; test_clip.py compares ours with it.

    python -m tests.server.make_clip_reference

This needs transformers 4 (4.57.6 was taken), the last to have `FlaxCLIPModel`.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np

from tests.server import clips


def towers(name: str, folder: Path) -> dict[str, np.ndarray]:
    """What both towers make of `clips.pixels` and `clips.TOKENS`."""
    from transformers import FlaxCLIPModel

    clips.write(folder, clips.CONFIGS[name], clips.drawn(clips.CONFIGS[name]))
    model = FlaxCLIPModel.from_pretrained(folder)
    return {
        f"{name}_images": model.get_image_features(clips.pixels()),
        f"{name}_texts": model.get_text_features(clips.TOKENS, clips.THERE),
        f"{name}_texts_unpadded": model.get_text_features(clips.TOKENS),
    }


def rows(folder: Path) -> dict[str, np.ndarray]:
    """Unit rows of real pictures and titles, one at a time, through a processor of its own."""
    from transformers import CLIPProcessor, FlaxCLIPModel

    clips.save(folder)
    model, processor = FlaxCLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings

    def unit(row: np.ndarray) -> np.ndarray:
        return np.asarray(row)[0] / np.linalg.norm(row)

    def of_title(title: str) -> np.ndarray:
        settings = {"padding": True, "truncation": True, "max_length": length}
        return unit(
            model.get_text_features(**processor(text=[title], return_tensors="np", **settings))
        )

    def of_picture(picture: np.ndarray) -> np.ndarray:
        return unit(
            model.get_image_features(processor(images=picture, return_tensors="np")["pixel_values"])
        )

    return {
        "pictures": np.stack([of_picture(picture) for picture in clips.pictures()]),
        "titles": np.stack([of_title(title) for title in clips.TITLES]),
    }


def main() -> None:
    """Make all of it."""
    jax.config.update("jax_platforms", "cpu")
    found = {}
    for make in (rows, *(lambda folder, name=name: towers(name, folder) for name in clips.CONFIGS)):
        with tempfile.TemporaryDirectory() as folder:
            found |= make(Path(folder))
    np.savez_compressed(clips.REFERENCE, **found)


if __name__ == "__main__":
    main()
