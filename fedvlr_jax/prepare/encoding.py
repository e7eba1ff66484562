"""Encode every picture and title once, and write the rows batch by batch."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from fedvlr_jax.data.pictures import PictureError, PictureFolder, quiet_decoders
from fedvlr_jax.prepare.options import PrepareConfig
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.server import clip
from fedvlr_jax.server.encode import Encoder, Timing
from fedvlr_jax.server.rows import RowStore

NO_TITLE = "The title is missing."


class Encoding:
    """Loads the encoder of a preparation and writes its features."""

    def __init__(self, config: PrepareConfig, out: Path, reporter: Reporter) -> None:
        self.model = clip.load(config.clip, config.precision, config.seed)
        self._config, self._out, self._reporter = config, out, reporter
        if not self.model.pretrained:
            reporter.note(
                f"warning: --clip={config.clip} has random weights; the features carry no "
                "pretrained knowledge and serve dry runs only"
            )

    def images(
        self, pictures: PictureFolder, where: list[str | None]
    ) -> Bool[np.ndarray, " items"]:
        """Write image_features.npy; which items have a picture that could be read."""

        def load(item: int) -> np.ndarray | None:
            name = where[item]
            try:
                return None if name is None else self.model.pixels(pictures.open(name))
            except PictureError:
                return None

        blank = self.model.pixels(Image.new("RGB", (16, 16)))
        with quiet_decoders():
            return self._encode(
                "image", self.model.embed_images, load, blank, pictures.states(where)
            )

    def texts(self, titles: list[str | None]) -> None:
        """Write text_features.npy."""
        texts = [title or NO_TITLE for title in titles]
        self._encode(
            "text",
            self.model.embed_texts,
            lambda item: self.model.tokens(texts[item]),
            self.model.tokens(""),
            texts,
        )

    def _encode(
        self,
        modality: str,
        embed: Callable,
        load: Callable[[int], np.ndarray | None],
        blank: np.ndarray,
        identity: list,
    ) -> Bool[np.ndarray, " items"]:
        """Encode the inputs that are not on disk yet; `identity` identifies every input."""
        key = hashlib.sha256(json.dumps(self.model.describe(), sort_keys=True).encode())
        for one in identity:
            key.update(repr(one).encode())
        store = RowStore(self._out / f"{modality}_features.npy", self.model.width, key.hexdigest())
        # No batch needs to be larger than all there is.
        batch = min(self._config.batch, len(identity))
        encoder = Encoder(embed, self.model.params, blank, batch, self._config.workers)
        done, count, timing = store.done, len(identity), Timing()
        if done:
            self._reporter.note(f"going on after {modality} {done:,}")
        self._reporter.begin(done, count, modality)
        encoded = 0
        for rows in encoder.rows(load, done, count, timing):
            store.append(rows)
            encoded += int(np.isfinite(rows[:, 0]).sum())
            self._reporter.advance(store.done)
        self._reporter.end()
        if encoded:
            idle = timing.idle / timing.total
            hint = "; more --workers may help" if idle > 0.2 else ""
            self._reporter.note(
                f"encoded {encoded:,} {modality}s, {encoded / timing.total:,.1f} a second, "
                f"{100 * idle:.1f} % of the time spent waiting for them to load{hint}"
            )
        return store.finish()
