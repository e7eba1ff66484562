"""Files: written so that a kill leaves the old content or the new, and read only where plain."""

import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd

from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import cell

UNFINISHED = ".tmp-"
LOCK = ".lock"
LOG = "traceback.log"  # of a bug that has ended a program
MOST_TEXT = 64 << 20  # bytes of a text that is read as a whole
_BLOCK = 1 << 22  # bytes read at once
_LONGEST_HEADER = 10_000  # bytes; numpy's own limit, which it applies after reading them
# What a file system answers that lacks links, locks or the like, by whatever name it has for it.
_NOT_SUPPORTED = {
    getattr(errno, name)
    for name in ("EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "ENOLCK", "EMLINK", "EXDEV")
}
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that is there, by its file `.lock`.

    Where the file system has no locks (`has_locks`), nothing keeps them out.

    Raises:
        UserError: another process is in it, or `.lock` is no plain file.
    """
    path = folder / LOCK
    while True:
        with open_lock(path) as lock:
            if not take_lock(lock):
                raise UserError(f"--out={folder}: another process is working in it")
            # Between opening and locking, its last owner may have removed the file.
            if not _is(path, lock.fileno()):
                continue
            yield
            return


def open_lock(path: Path) -> IO:
    """A file to lock, made if it is not there.

    Raises:
        UserError: something else has its name.
    """
    if path.exists():
        plain_size(path)
    # Should a pipe have taken the name since: opened like this, it is not waited for.
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666), "ab")


def take_lock(file: IO) -> bool:
    """Lock a file for this process until it is closed; False where another one has it."""
    try:
        with where_supported():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(file: IO) -> None:
    """Lock a file for this process until it is closed, when no other one has it any more."""
    with where_supported():
        fcntl.flock(file, fcntl.LOCK_EX)


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder that is there has locks, of files and of parts of them.

    Databases take the second kind.
    """

    def lock(path: Path) -> None:
        for take in (fcntl.flock, fcntl.lockf):
            with open(path, "wb") as file:
                take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return _supports(folder, lock)


def has_symbolic_links(folder: Path) -> bool:
    """Whether the file system of a folder that is there has symbolic links."""
    return _supports(folder, lambda path: path.symlink_to("nowhere"))


def has_hard_links(folder: Path) -> bool:
    """Whether a file of a folder that is there can have a second name."""

    def link(path: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED) as file:
            os.link(file.name, path)

    return _supports(folder, link)


def _supports(folder: Path, action: Callable[[Path], None]) -> bool:
    """Try something with a name below `folder`, which is free again afterwards."""
    probe = folder / f"{UNFINISHED}probe-{os.getpid()}"
    try:
        probe.unlink(missing_ok=True)
        action(probe)
    except OSError as error:
        return error.errno not in _NOT_SUPPORTED
    finally:
        probe.unlink(missing_ok=True)
    return True


def check_folder(folder: Path) -> None:
    """Refuse what no folder can be made of, nor is one.

    Args:
        folder: that --out names.

    Raises:
        UserError: it, or what it is to be in, is a file or a link to nothing.
    """
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            what = "a file" if place.exists() else "a link to nothing"
            where = "" if place == folder else f" {place}"
            raise UserError(f"--out={folder}:{where} is {what}, expected a folder")


def plain_size(path: Path) -> int:
    """Size in bytes of a plain file. Opening anything else may wait for ever, so ask first.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device.
        OSError: it is not there, or cannot be asked.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise UserError(f"{path}: is {what}, expected a plain file")
    return status.st_size


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> list[int]:
    """Size in bytes and CRC-32 of a file."""
    size, value = 0, 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            value = zlib.crc32(block, value)
    return [size, value]


def open_plain(path: Path, most: int | None = None) -> BinaryIO:
    """Open a plain file to read its bytes.

    Reading a named pipe could wait for ever, and a device may have no end.

    Args:
        path: of the file, or of a link to one.
        most: bytes that it may have; None for any number.

    Raises:
        UserError: it is no plain file, or has more bytes.
        OSError: it is not there, or may not be read.
    """
    size = plain_size(path)
    if most is not None and size > most:
        raise UserError(f"{path}: has {size:,} bytes, expected at most {most:,}")
    # The file may have become another one since: then this does not wait for a pipe's other end.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a plain file in UTF-8, with or without a byte order mark.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UserError: it is no plain file, cannot be read, is too large or is no such text.
    """
    try:
        with open_plain(path, most) as file:
            return file.read(most).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start + 1} is no text in UTF-8, expected a file in UTF-8"
        ) from None


def read_json(path: Path, most: int = MOST_TEXT) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UserError: there is none in it.
    """
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Args:
        text: to read.
        where: it stands, for people.

    Raises:
        UserError: it is no JSON, holds numbers that no float holds, or is no object.
    """
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a JSON object")
    return content


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is no finite number")
    return value


def read_array_header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether column by column, and type of the numbers in an .npy file.

    The file is left where the numbers begin.

    Raises:
        ValueError: it is no such file, or holds Python objects; numpy may raise other errors on
            bytes that were made to break it.
    """
    version = np.lib.format.read_magic(file)
    if version[0] not in (1, 2, 3) or version[1]:
        raise ValueError(f"format {version[0]}.{version[1]} is unknown")
    short = version == (1, 0)
    width = 2 if short else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes, expected at most {_LONGEST_HEADER:,}")
    file.seek(-width, 1)
    # Format 3 differs from 2 in names of fields only, which plain numbers do not have.
    read = np.lib.format.read_array_header_1_0 if short else np.lib.format.read_array_header_2_0
    with catch_warnings():
        simplefilter("ignore")  # that an array was written by Python 2
        shape, by_column, stored = read(file)
    if stored.hasobject:
        raise ValueError("it holds Python objects")
    return shape, by_column, stored


def _is(path: Path, descriptor: int) -> bool:
    """Whether `path` is the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which then is on the disk and takes the place of `path` in one step."""
    temporary = path.with_name(UNFINISHED + path.name)
    temporary.unlink(missing_ok=True)  # a pipe or a link of this name would be written to
    try:
        with open(temporary, "wb") as file:
            yield file
            to_disk(file)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the system does not say whose write a full disk ends
        raise


def to_disk(file: IO) -> None:
    """Wait until what was written is on the disk, where the file system can tell."""
    file.flush()
    with where_supported():
        os.fsync(file.fileno())


@contextmanager
def where_supported() -> Iterator[None]:
    """Go on where a file system answers that it has no such thing."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the content of `path` in one step."""
    with _replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by a text in UTF-8, in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace the content of `path` by indented JSON; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, records: list[dict]) -> None:
    """Replace the content of `path` by one JSON object per line."""
    write_text(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def append_line(path: Path, record: dict) -> None:
    """Add one JSON object as a line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Replace the content of `path` by a comma-separated table with a header.

    Texts that a spreadsheet would run as formulas are written as `foreign.cell` says.
    """
    shown, quoting = table.copy(), csv.QUOTE_MINIMAL
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            shown[name] = table[name].map(lambda x: cell(x) if isinstance(x, str) else x)
            if any(isinstance(x, str) and "\r" in x for x in table[name]):
                quoting = csv.QUOTE_NONNUMERIC  # the other quotes no "\r", which ends a line
    with _replacing(path) as file:
        shown.to_csv(file, mode="wb", index=False, lineterminator="\n", quoting=quoting)


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace the content of `path` by an array in numpy's own format."""
    with _replacing(path) as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Replace the content of `path` by a compressed npz archive."""
    with _replacing(path) as file:
        np.savez_compressed(file, **arrays)


def is_leftover(path: Path) -> bool:
    """Whether `path` is what a killed write or a bug left behind, and nobody's result."""
    return path.name.startswith(UNFINISHED) or path.name == LOG
