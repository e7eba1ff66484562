"""Item pictures from a folder that is not trusted.

Nothing outside the folder is ever opened: a picture named after its item is found among the files
that are there, so an id never becomes a path, and a path from a table is resolved first. Files may
have any content; a `PictureError` says why one cannot be decoded safely.
"""

import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from fedvlr_jax.data.text import is_plain
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import open_plain
from fedvlr_jax.foreign import words_of

# Formats that Pillow decodes by itself. EPS, for one, would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MOST_PIXELS = 50_000_000
_MOST_BYTES = 64_000_000
_MOST_SCANS = 200  # of a progressive JPEG; each costs time, and a few bytes make one
# Decoding takes several times 4 bytes a pixel, so pictures with more pixels than this are decoded
# one at a time, and made smaller (to sides of about 1,000) before anything else copies them. In a
# thread of their own, since every thread keeps the memory that it once needed.
_LARGE = 8_000_000
_SMALLER_SIDE = 1000
_one_by_one = ThreadPoolExecutor(1)
# How to turn a picture upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The shorter side becomes the encoder's width, so a thin picture would become a huge one.
_LONGEST_TO_SHORTEST = 50


class PictureError(Exception):
    """A picture that is not used, and why."""


class MissingPictureError(PictureError):
    """There is no such file."""


@dataclass(frozen=True)
class PictureFolder:
    """The pictures below a folder.

    Raises:
        UserError: there is no such folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise UserError(f"--images={self.folder}: no such folder")

    def by_stem(self) -> dict[str, str]:
        """Path below the folder of every picture, by its name without the suffix.

        Of several with one stem the first in order of paths is taken. Symbolic links to folders
        are not followed.
        """
        found: dict[str, str] = {}
        for place, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                # A table could not hold a name that is not text.
                if suffix.lower() in SUFFIXES and is_plain(name) and is_plain(place):
                    path = os.path.relpath(os.path.join(place, name), self.folder)
                    found.setdefault(stem, path)
        return found

    def locate(self, names: Mapping[str, str] | None, items: list[str]) -> list[str | None]:
        """Every item's path below the folder, None where it has no picture.

        Args:
            names: paths by item id, as a table tells them; None takes the file that is named after
                the item.
            items: item ids.
        """
        if names is None:
            found = self.by_stem()
            # An id that a column of floats spelled 7.0 is read as 7; its picture may be 7.0.jpg.
            other = {item: f"{item}.0" for item in items if item.isdecimal() and item not in found}
            return [found.get(other.get(item, item)) for item in items]
        return [self._if_there(names.get(item)) for item in items]

    def states(self, names: list[str | None]) -> list[tuple[str, int, int] | None]:
        """Path, size and time of change of every picture; they differ if a picture has changed."""
        found: list[tuple[str, int, int] | None] = []
        for name in names:
            try:
                state = None if name is None else self._inside(name).stat()
                found.append(state and (name, state.st_size, state.st_mtime_ns))
            except (PictureError, OSError):
                found.append((name, -1, -1))
        return found

    def open(self, name: str) -> Image.Image:
        """One picture in RGB, upright, its first frame, 8 bits a channel.

        Args:
            name: path below the folder.

        Raises:
            PictureError: it is not there, leads out of the folder, is no plain file, has too many
                pixels or an extreme shape, or cannot be decoded.
        """
        return decode(self._inside(name))

    def _if_there(self, name: str | None) -> str | None:
        try:
            return None if name is None else self._inside(name) and name
        except MissingPictureError:
            return None
        except PictureError:
            return name  # opening it raises the same error

    def _inside(self, name: str) -> Path:
        try:
            root = self.folder.resolve()
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise PictureError("leads out of the folder")
            found = path.stat()
        except FileNotFoundError:
            raise MissingPictureError("no such file") from None
        except (OSError, ValueError, RuntimeError) as error:  # loops of links, names with NUL
            raise PictureError(f"cannot be read ({error})") from None
        if not stat.S_ISREG(found.st_mode):
            raise PictureError("not a plain file")
        if found.st_size > _MOST_BYTES:
            raise PictureError(f"has {found.st_size:,} bytes, at most {_MOST_BYTES:,}")
        return path


def decode(path: Path) -> Image.Image:
    """The first frame of a picture file in RGB, 8 bits a channel, upright as viewers show it.

    Raises:
        PictureError: too many pixels, an extreme shape, or not decodable.
    """
    try:
        # By its open file, not by its path: then Pillow does not map it into memory, which mixes up
        # the rows of a plain TIFF that lies on its side.
        with open_plain(path) as file, Image.open(file, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > _MOST_PIXELS:
                raise PictureError(f"has {width} x {height} pixels, at most {_MOST_PIXELS:,}")
            if max(width, height) > _LONGEST_TO_SHORTEST * min(width, height):
                raise PictureError(f"is {width} x {height}, too thin")
            if picture.info.get("progressive"):
                scans = path.read_bytes().count(b"\xff\xda")
                if scans > _MOST_SCANS:
                    raise PictureError(f"has {scans} scans, at most {_MOST_SCANS}")
            if width * height <= _LARGE:
                return _upright(picture, _eight_bits(picture).convert("RGB"))
            return _one_by_one.submit(_made_smaller, picture).result()
    except PictureError:
        raise
    except UnidentifiedImageError:  # Pillow would name the open file
        raise PictureError(f"cannot be decoded (none of {', '.join(_FORMATS)})") from None
    except Exception as error:  # a decoder may raise anything on bytes that were made to break it
        raise PictureError(f"cannot be decoded ({words_of(error)})") from None


def _made_smaller(picture: Image.Image) -> Image.Image:
    """A large picture in RGB with its shorter side at about `_SMALLER_SIDE`."""
    whole = _eight_bits(picture).convert("RGB")
    return _upright(picture, whole.reduce(max(min(picture.size) // _SMALLER_SIDE, 1)))


def _upright(picture: Image.Image, decoded: Image.Image) -> Image.Image:
    """The decoded picture, turned upright by its EXIF orientation.

    Read after decoding, because a PNG may have its orientation after its pixels.
    """
    try:
        turn = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # broken EXIF data; the picture itself is fine
        return decoded
    return decoded if turn is None else decoded.transpose(turn)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A greyscale picture of 16 bits or more scaled to 8; Pillow would clip it to white."""
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda v: v * (1 / 257)).convert("L")
    if picture.mode in ("I", "F"):
        low, high = picture.getextrema()
        if low < 0 or high > 255:
            scale = 1 / 257 if low >= 0 and high <= 65535 else 255 / (high - low)
            offset = 0 if low >= 0 and high <= 65535 else -low * scale
            return picture.point(lambda v: v * scale + offset).convert("L")
    return picture


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """While pictures are decoded in threads: a picture's oddities are its own, not warnings.

    The filters of `warnings` are the process's, so they are set once around all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
