"""Read text files, plain or gzip, line by line. Every error names file and line."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from fedvlr_jax.data.table import OTHER_TEXT, csv_rows
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import open_plain

_GZIP = b"\x1f\x8b"
_LONGEST = 1 << 24  # letters of a line, more are no line
_BLOCK = 1 << 20  # letters decoded at once
_HEADER_WITHIN = 20  # lines from the top that are searched for a header
_NOT_LATIN = re.compile(rb"[\x80-\x9f]")  # which Latin-1 has no letters for
# RecBole's atomic files (recbole.io/docs) have a column's type in its name: user_id:token.
_ATOMIC = re.compile(r":(?:token|token_seq|float|float_seq)$")


class TextFile:
    """One text file, read once. Afterwards `notes` has the notes for the user.

    Its text is UTF-8. With a `fallback`, a file that is not UTF-8 is read in that encoding, all
    of it.
    """

    def __init__(self, path: Path, fallback: str | None = None) -> None:
        self.path = path
        self.notes: list[str] = []
        self._fallback = fallback

    def refuse(self, line: int, found: str) -> UserError:
        """The error to raise about one line."""
        return UserError(f"{self.path}, line {line}: {found}")

    def lines(self) -> Iterator[str]:
        """The lines with their ends (LF, CR LF or CR); line k is the k-th, counted from 1.

        Raises:
            UserError: empty, unreadable, not in the expected encoding, a line without end, or a
                gzip stream that is cut off or damaged.
        """
        number, text = 0, ""
        try:
            encoding = self._encoding() if self._fallback else "utf-8"
            with self._bytes() as file, io.TextIOWrapper(file, encoding, newline="") as reader:
                for number, text in enumerate(iter(partial(reader.readline, _LONGEST), ""), 1):
                    if number == 1:
                        text = text.removeprefix("\ufeff")
                        if "\0" in text:
                            raise self.refuse(1, "holds NUL bytes, expected text in UTF-8")
                    if len(text) >= _LONGEST:
                        raise self.refuse(
                            number, f"longer than {_LONGEST:,} characters, expected a line of text"
                        )
                    yield text
        except UnicodeDecodeError:
            raise self._not_text() from None
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
        if not text.endswith(("\n", "\r")) and not self._is_gzip():
            self.notes.append(
                f"{self.path}, line {number}: the last line has no line end; if the file was cut "
                "off, that line may be incomplete"
            )

    def top(self) -> list[str]:
        """The lines, without their ends, among which there should be a header.

        Raises:
            UserError: as `lines`.
        """
        lines = TextFile(self.path, self._fallback).lines()
        return [line.rstrip("\r\n") for line in islice(lines, _HEADER_WITHIN)]

    def _is_gzip(self) -> bool:
        with open_plain(self.path) as file:
            return file.read(2) == _GZIP

    def _bytes(self) -> io.BufferedIOBase:
        return gzip.open(self.path) if self._is_gzip() else open_plain(self.path)

    def _encoding(self) -> str:
        """The encoding of the whole file, found before any of it is used."""
        try:
            with self._bytes() as file, io.TextIOWrapper(file, "utf-8", newline="") as reader:
                while reader.read(_BLOCK):
                    pass
            return "utf-8"
        except UnicodeDecodeError:
            pass
        first: dict[bool, int] = {}  # the first line that is UTF-8 beyond ASCII, and that is not
        with self._bytes() as file:
            for number, raw in enumerate(file, 1):
                if number == 1 and (b"\0" in raw or raw.startswith(codecs.BOM_UTF8)):
                    raise self._not_text()
                if not raw.isascii():
                    first.setdefault(_is_utf8(raw), number)
                if _NOT_LATIN.search(raw) and not _is_utf8(raw):
                    raise self.refuse(number, f"neither UTF-8 nor {self._fallback.title()}")
        if len(first) == 2:
            raise self.refuse(
                first[False],
                f"is not UTF-8, and line {first[True]} is, expected one encoding in a file",
            )
        self.notes.append(
            f"{self.path}, line {first[False]}: is not UTF-8; the file is read as "
            f"{self._fallback.title()}"
        )
        return self._fallback

    def _not_text(self) -> UserError:
        """What is wrong with the first line that is no UTF-8."""
        with self._bytes() as file:
            # The same line ends as in `lines`; Latin-1 reads any bytes between them.
            reader = io.TextIOWrapper(file, "latin-1", newline="")
            for number, text in enumerate(iter(partial(reader.readline, _LONGEST), ""), 1):
                raw = text.encode("latin-1")
                if number == 1 and raw[:2] in OTHER_TEXT:
                    return self.refuse(1, f"begins like {OTHER_TEXT[raw[:2]]}, expected UTF-8")
                try:
                    raw.decode()
                except UnicodeDecodeError as error:
                    where = f"byte {raw[error.start]:#04x} at column {error.start + 1}"
                    return self.refuse(number, f"{where} is not UTF-8")
        return UserError(f"{self.path}: not text in UTF-8")

    def rows(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of every row that is not blank; quotes as in RFC 4180.

        Raises:
            UserError: as `lines`, or a quoted cell that does not end.
        """
        for line, row in csv_rows(self.path, self.lines(), delimiter):
            if row:
                yield line, row

    def records(self, wanted: Collection[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and object of every line of JSON that is not blank.

        Numbers with a point stay as they are spelled, so that none of their digits is lost.

        Raises:
            UserError: as `lines`, a line that is not a JSON object, or one of the `wanted` names
                twice in one object.
        """
        twice: list[str] = []

        def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            # The last call is for the outermost object, whose names count.
            found = dict(pairs)
            names = Counter(name for name, _ in pairs) if len(found) < len(pairs) else {}
            twice[:] = sorted(name for name in wanted if names.get(name, 0) > 1)
            return found

        decoder = json.JSONDecoder(object_pairs_hook=object_of, parse_float=str, parse_constant=str)
        for number, text in enumerate(self.lines(), 1):
            if text.isspace():
                continue
            try:
                record = decoder.decode(text)
            except (ValueError, RecursionError) as error:
                deep = isinstance(error, RecursionError)
                # A ValueError without `msg` is Python's limit for the digits of whole numbers.
                too = "nested too deeply" if deep else "a number has too many digits"
                reason = getattr(error, "msg", too)
                raise self.refuse(number, f"not JSON ({reason}), expected one object") from None
            if not isinstance(record, dict):
                kind = type(record).__name__
                raise self.refuse(number, f"holds a JSON {kind}, expected an object")
            if twice:
                raise self.refuse(number, f"{twice[0]} appears twice, expected each name once")
            yield number, record

    def table(
        self, delimiter: str, wanted: Sequence[str], names: Sequence[str] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """Line number and the `wanted` cells, in that order, of every row below the header.

        Args:
            delimiter: between cells.
            wanted: names of columns; `user_id` is also the name of RecBole's `user_id:token`.
            names: of all columns, if the file has no header.

        Raises:
            UserError: as `rows`, a column that is missing or appears twice, no row at all, or a row
                with more or fewer cells than the header.
        """
        rows = self.rows(delimiter)
        number, header = (0, names) if names else next(rows, (1, []))
        places = []
        for name in wanted:
            found = [place for place, cell in enumerate(header) if name in column_names(cell)]
            if len(found) != 1:
                raise self._no_column(number, name, header, found, delimiter, wanted)
            if found[0] in places:
                other = wanted[places.index(found[0])]
                raise self.refuse(number, f"{other} and {name} are one column, expected two")
            places.append(found[0])
        number = 0
        for number, row in rows:
            if len(row) != len(header):
                like = "--columns" if names else "the header"
                raise self.refuse(number, f"{len(row)} cells, expected {len(header)} as in {like}")
            if row == header:
                raise self.refuse(number, "repeats the header, expected it once, in the first line")
            yield number, [row[place] for place in places]
        if not number:
            raise UserError(f"{self.path}: no row below the header")

    def _no_column(
        self,
        number: int,
        name: str,
        header: Sequence[str],
        found: Sequence[int],
        delimiter: str,
        wanted: Sequence[str],
    ) -> UserError:
        if found:
            places = " and ".join(str(place + 1) for place in found)
            return self.refuse(
                number,
                f"column {name} appears {len(found)} times, at places {places}, expected it once",
            )
        known = ", ".join(cell[:40] for cell in header[:20])
        rows = TextFile(self.path, self._fallback).rows(delimiter)
        for later, row in islice(rows, _HEADER_WITHIN):
            if all(any(one in column_names(cell) for cell in row) for one in wanted):
                return self.refuse(
                    number,
                    f"no column {name}, found {known}; line {later} is the header, expected no "
                    "line above it",
                )
        return self.refuse(number, f"no column {name}, found {known}")


def column_names(cell: str) -> set[str]:
    """The names under which a column with this cell in the header is found."""
    bare = cell.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1].strip()
    return {cell, bare, _ATOMIC.sub("", bare)}


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


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
