"""Frozen features in .npy files: header and size are checked before the numbers are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from fedvlr_jax.data.text import shown
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import open_plain, plain_size, read_array_header
from fedvlr_jax.foreign import words_of
from fedvlr_jax.host import host_bytes

MODALITIES = ("image", "text")
_ENDINGS = ("features", "feat")  # ours, and MMRec's own
# A row of a million numbers of this size still has a squared length that float32 can hold.
_LARGEST = 1e16
_BLOCK = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class FeatureFile:
    """An array of numbers on disk whose header has been read and checked.

    Attributes:
        path: the .npy file.
        shape: (items, width).
        stored: type of the numbers in the file.
        by_column: whether the file holds column after column (Fortran order).
        start: where the numbers begin, in bytes.
    """

    path: Path
    shape: tuple[int, int]
    stored: np.dtype
    by_column: bool
    start: int

    @property
    def kept(self) -> np.dtype:
        """Type of the numbers in memory: float16 and float32 as they are, float32 for others."""
        return self.stored if self.stored in (np.float16, np.float32) else np.dtype(np.float32)

    @property
    def kept_bytes(self) -> int:
        """What the array takes in memory."""
        return self.shape[0] * self.shape[1] * self.kept.itemsize

    def read(self) -> Float[np.ndarray, "items width"]:
        """The numbers, checked block by block.

        Raises:
            UserError: NaN, inf, a number too large to compute with, or a file that has been cut
                off since its header was read.
            OSError: it cannot be read.
        """
        values = np.empty(self.shape[::-1] if self.by_column else self.shape, self.kept)
        lines = max(_BLOCK // (values.shape[1] * self.stored.itemsize), 1)
        with open_plain(self.path) as file:
            file.seek(self.start)
            for first in range(0, len(values), lines):
                block = values[first : first + lines]
                found = np.fromfile(file, self.stored, block.size)
                if found.size < block.size:
                    raise UserError(f"{self.path}: was cut off while it was read")
                found = found.reshape(block.shape)
                with np.errstate(over="ignore"):  # what float32 cannot hold is refused as inf
                    block[:] = found
                wrong = ~_usable(block)
                if wrong.any():
                    at = np.unravel_index(wrong.argmax(), wrong.shape)
                    raise self._refused(int(at[1] if self.by_column else first + at[0]), found[at])
        return values.T if self.by_column else values

    def _refused(self, row: int, value: np.number) -> UserError:
        found = "NaN" if np.isnan(value) else f"{value:.4g}"
        return UserError(
            f"{self.path}: row {row} holds {found}, expected numbers that float32 can compute "
            f"with (no NaN, no inf, at most {_LARGEST:.0e} in size)"
        )


def _usable(block: Float[np.ndarray, "lines length"]) -> Bool[np.ndarray, "lines length"]:
    if block.dtype == np.float16:  # which cannot hold the limit either
        return np.isfinite(block)
    return np.abs(block) <= _LARGEST


def open_features(path: Path) -> FeatureFile:
    """Check the header and the size of an .npy file without reading its numbers.

    Raises:
        UserError: no plain file, no array of numbers of shape (items, width), or more or fewer
            bytes than its header promises.
        OSError: it cannot be read.
    """
    size = plain_size(path)
    try:
        with open_plain(path) as file:
            shape, by_column, stored = read_array_header(file)
            start = file.tell()
    except OSError:
        raise
    except Exception as error:  # numpy raises anything on bytes that were made to break it
        raise UserError(f"{path}: not a plain numpy array of numbers ({words_of(error)})") from None
    if len(shape) != 2 or min(shape) <= 0:
        raise UserError(
            f"{path}: found {shown(str(shape))}, expected an array of shape (items, width)"
        )
    if stored.kind not in "fiu":
        raise UserError(f"{path}: holds {shown(str(stored))}, expected numbers")
    promised, there = shape[0] * shape[1] * stored.itemsize, size - start
    if promised != there:
        raise UserError(
            f"{path}: holds {there:,} bytes of numbers, expected {shown(f'{promised:,}')} for the "
            f"shape {shown(str(shape))} in its header"
        )
    return FeatureFile(path, shape, stored, by_column, start)


def find_features(folder: Path) -> dict[str, FeatureFile]:
    """The feature files of a folder by modality, checked by their headers and against each other.

    They are called `image_features.npy` and `text_features.npy`, or as MMRec calls them,
    `image_feat.npy` and `text_feat.npy`.

    Raises:
        UserError: as `open_features` and `check_together`, or two files for one modality.
        OSError: one of them cannot be read.
    """
    found = {}
    for modality in MODALITIES:
        paths = [folder / f"{modality}_{ending}.npy" for ending in _ENDINGS]
        there = [path for path in paths if path.is_symlink() or path.exists()]
        if len(there) == 2 and not there[0].samefile(there[1]):
            raise UserError(
                f"{folder}: holds {there[0].name} and {there[1].name}, expected one of the two"
            )
        if there:
            found[modality] = open_features(there[0])
    check_together(folder, found)
    return found


def refuse_transposed(found: Mapping[str, FeatureFile], n_items: int) -> None:
    """Refuse arrays of shape (width, items).

    Args:
        found: of `find_features`.
        n_items: one more than the largest item that anybody has.

    Raises:
        UserError: an array has more rows than that, and as many columns.
    """
    for file in found.values():
        if file.shape[0] > file.shape[1] == n_items:
            raise UserError(
                f"{file.path}: found {shown(str(file.shape))} for {n_items} items, expected an "
                "array of shape (items, width); it may be transposed"
            )


def check_together(folder: Path, found: Mapping[str, FeatureFile]) -> None:
    """Refuse files that do not fit each other, or together do not fit in memory.

    Raises:
        UserError: the numbers of rows differ, or there is too little memory.
    """
    files = list(found.values())
    if len({file.shape[0] for file in files}) > 1:
        one, other = files
        raise UserError(
            f"{folder}: {one.path.name} has {one.shape[0]} rows and {other.path.name} "
            f"{other.shape[0]}, expected one row per item in both"
        )
    needed, there = sum(file.kept_bytes for file in files), host_bytes()
    if needed > there:
        names = " and ".join(file.path.name for file in files)
        raise UserError(
            f"{folder}: {names} need {needed / 1e9:,.1f} GB of memory, this machine has "
            f"{there / 1e9:,.1f} GB"
        )
