"""Text files, plain or gzip, line by line: every problem is told with its file and line."""

import codecs
import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedvlr_jax.data.text import is_plain
from fedvlr_jax.errors import UserError

_LARGEST = 2.0**53  # whole numbers from here on would be rounded, and times reordered
_GZIP = b"\x1f\x8b"


class TextFile:
    """One text file, read once; afterwards `notes` says what a person should know about it."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self.path = path
        self.notes: list[str] = []
        self._encoding = encoding

    def refuse(self, line: int, found: str) -> UserError:
        """The error to raise about one line."""
        return UserError(f"{self.path}, line {line}: {found}")

    def lines(self) -> Iterator[str]:
        """The lines with their ends; line k is the k-th, counted from 1.

        Raises:
            UserError: empty, unreadable, not in the expected encoding, or a gzip stream that is
                cut off or damaged.
        """
        number, raw = 0, b""
        try:
            with open(self.path, "rb") as file:
                compressed = file.read(2) == _GZIP
            with gzip.open(self.path) if compressed else open(self.path, "rb") as file:
                for number, raw in enumerate(file, 1):
                    text = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                    yield text.decode(self._encoding)
        except UnicodeDecodeError as error:
            where = f"byte {error.object[error.start]:#04x} at column {error.start + 1}"
            raise self.refuse(number, f"{where} is not {self._encoding.upper()}") from None
        except EOFError:
            raise self.refuse(
                number + 1, "the gzip stream ends here, the file was cut off; expected all of it"
            ) from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise self.refuse(number + 1, f"the gzip stream is damaged ({error})") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if number == 0:
            raise UserError(f"{self.path}: the file is empty, expected lines of text")
        if not raw.endswith(b"\n") and not compressed:
            self.notes.append(
                f"{self.path}, line {number}: the last line has no line end; if the file was cut "
                "off, that line may be incomplete"
            )

    def rows(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of every row that is not blank; quotes as in RFC 4180.

        Raises:
            UserError: as `lines`, or a quoted cell that does not end.
        """
        reader = csv.reader(self.lines(), delimiter=delimiter, strict=True)
        begun = 1
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = (
                    "a quoted cell begins here and does not end"
                    if "unexpected end" in str(error)
                    else str(error)
                )
                raise self.refuse(begun, reason) from None
            if row:
                yield begun, row
            begun = reader.line_num + 1

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and object of every line of JSON that is not blank.

        Raises:
            UserError: as `lines`, or a line that is not a JSON object.
        """
        for number, text in enumerate(self.lines(), 1):
            if text.isspace():
                continue
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                deep = isinstance(error, RecursionError)
                reason = "nested too deeply" if deep else getattr(error, "msg", str(error))
                raise self.refuse(number, f"not JSON ({reason}), expected one object") from None
            if not isinstance(record, dict):
                kind = type(record).__name__
                raise self.refuse(number, f"holds a JSON {kind}, expected an object")
            yield number, record

    def table(self, delimiter: str, wanted: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Line number and the `wanted` cells, in that order, of every row below the header.

        Raises:
            UserError: as `rows`, a column that is missing, no row at all, or a row with more or
                fewer cells than the header.
        """
        rows = self.rows(delimiter)
        number, header = next(rows, (1, []))
        for name in wanted:
            if name not in header:
                found = ", ".join(header)
                raise self.refuse(number, f"no column {name}, found {found}")
        places = [header.index(name) for name in wanted]
        number = 0
        for number, row in rows:
            if len(row) != len(header):
                raise self.refuse(number, f"{len(row)} cells, expected the header's {len(header)}")
            yield number, [row[place] for place in places]
        if not number:
            raise UserError(f"{self.path}: no row below the header")

    def number(self, line: int, name: str, text: Any) -> float:
        """`text` as a finite number.

        Raises:
            UserError: it is not one.
        """
        try:
            value = math.nan if isinstance(text, bool | None) else float(text)
        except (ValueError, TypeError, OverflowError):
            value = math.nan
        if not abs(value) < _LARGEST:
            shown = repr(text)[:40]
            raise self.refuse(line, f"{name} is {shown}, expected a number below 2^53")
        return value

    def identifier(self, line: int, name: str, text: Any) -> str:
        """`text` as an id: a string with something in it, or a whole number.

        Raises:
            UserError: it is not one.
        """
        if isinstance(text, int) and not isinstance(text, bool):
            return str(text)
        if not isinstance(text, str) or not text.strip() or not is_plain(text.strip()):
            shown = ascii(text)[:40]
            raise self.refuse(line, f"{name} is {shown}, expected an id")
        return text.strip()


def find(folder: Path, patterns: Iterable[str], what: str, flag: str = "--raw") -> list[Path]:
    """The files in `folder` that fit any of the `patterns`, with or without .gz, sorted.

    Raises:
        UserError: the folder is not there, or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"{flag}={folder}: no such folder")
    patterns = tuple(patterns)
    found = sorted(
        {
            path
            for pattern in patterns
            for end in ("", ".gz")
            for path in folder.glob(pattern + end)
            if path.is_file()
        }
    )
    if not found:
        names = " or ".join(patterns)
        raise UserError(f"{flag}={folder}: no {what} there, expected {names} (or .gz)")
    return found


def find_one(folder: Path, patterns: Iterable[str], what: str) -> Path:
    """The single file of `find`.

    Raises:
        UserError: there is none, or more than one.
    """
    found = find(folder, patterns, what)
    if len(found) != 1:
        names = ", ".join(p.name for p in found)
        raise UserError(f"--raw={folder}: found {names}, expected exactly one file of {what}")
    return found[0]
