"""Feature rows on disk while they are being computed: a kill loses one batch at most."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from fedvlr_jax.files import UNFINISHED, to_disk, write_json

_BLOCK = 65536  # rows in memory at once
_STORED = np.dtype(np.float16)


class RowStore:
    """Rows appended in order to a file beside `target`, which replaces it when all are there.

    A row of NaN stands for an item that has no embedding. The size of the file tells how many rows
    are done, so there is nothing else that could disagree with it.
    """

    def __init__(self, target: Path, width: int, key: str) -> None:
        """Open the store of `target`, or start it anew if it was made from something else.

        Args:
            target: the .npy file to be.
            width: of a row.
            key: names all that the rows depend on.
        """
        self._target, self._width = target, width
        self._folder = target.with_name(UNFINISHED + target.stem)
        self._rows = self._folder / "rows.f16"
        if self._stored_key() != key:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._rows.touch()
            write_json(self._folder / "key.json", {"key": key})
        os.truncate(self._rows, self.done * self._row_bytes)

    @property
    def done(self) -> int:
        """How many whole rows are on disk."""
        return self._rows.stat().st_size // self._row_bytes

    def append(self, rows: Float[np.ndarray, "batch width"]) -> None:
        """Add rows and wait until they are on disk."""
        with open(self._rows, "ab") as file:
            file.write(np.ascontiguousarray(rows, _STORED).data)
            to_disk(file)

    def finish(self) -> Bool[np.ndarray, " items"]:
        """Write the target, rows of NaN replaced by the mean of the others.

        Returns:
            Which rows were not replaced. Where there is none, no target is written.
        """
        stored = np.memmap(self._rows, _STORED, "r").reshape(-1, self._width)
        blocks = range(0, len(stored), _BLOCK)
        present = np.concatenate([~np.isnan(stored[b : b + _BLOCK, 0]) for b in blocks])
        if not present.any():
            return present
        total = sum(
            stored[b : b + _BLOCK][present[b : b + _BLOCK]].sum(axis=0, dtype=np.float64)
            for b in blocks
        )
        mean = (total / present.sum()).astype(_STORED)
        temporary = self._folder / "features.npy"
        target = np.lib.format.open_memmap(temporary, "w+", _STORED, stored.shape)
        for b in blocks:
            there = present[b : b + _BLOCK, None]
            target[b : b + _BLOCK] = np.where(there, stored[b : b + _BLOCK], mean)
        target.flush()
        os.replace(temporary, self._target)
        return present

    @property
    def _row_bytes(self) -> int:
        return self._width * _STORED.itemsize

    def _stored_key(self) -> str | None:
        try:
            return json.loads((self._folder / "key.json").read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
