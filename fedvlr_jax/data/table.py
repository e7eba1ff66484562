"""Read the tables of a data folder as text. A row that does not fit the header is an error."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from fedvlr_jax.data.text import is_missing, shown
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import open_plain, plain_size
from fedvlr_jax.host import host_bytes

_LONGEST_LINE = 1_000_000  # bytes
_LONGEST_CELL = 1 << 24  # letters; for csv, which would refuse some titles
# Larger ids are a mistake, and they would not fit into arrays of int32.
_LARGEST = 2**31 - 2
OTHER_TEXT = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: the file.
        cells: by the columns' names, without the rows at the end in which every cell is empty.
        lines: where every row begins, counted from 1.
    """

    path: Path
    cells: pd.DataFrame
    lines: Int64[np.ndarray, " rows"]

    def refuse(self, row: int, found: str) -> UserError:
        """The error to raise about one row."""
        return UserError(f"{self.path}, line {self.lines[row]}: {found}")

    def refuse_cell(self, row: int, name: str, expected: str) -> UserError:
        """The error to raise about one cell."""
        text = self.cells[name].iloc[row]
        marker = ", a marker of a missing value" if text and is_missing(text) else ""
        return self.refuse(row, f"{name} is {shown(text)}{marker}, expected {expected}")

    def without(self, rows: Bool[np.ndarray, " rows"]) -> "Table":
        """The table without some of its rows."""
        return Table(self.path, self.cells[~rows].reset_index(drop=True), self.lines[~rows])

    def whole_numbers(
        self, name: str, expected: str = "a whole number of at least 0"
    ) -> tuple[Int64[np.ndarray, " rows"], list[str]]:
        """A column of whole numbers from 0, and notes about how it was read.

        `7.0`, which programs write where a column has had gaps, is read as 7.

        Raises:
            UserError: a cell is anything else, told with its line.
        """
        codes, texts = pd.factorize(self.cells[name])
        distinct = np.fromiter(map(_whole, texts), np.int64, len(texts))
        numbers = distinct[codes]
        if (numbers < 0).any():
            raise self.refuse_cell(int((numbers < 0).argmax()), name, expected)
        plain = np.fromiter(map(str, distinct), object, len(texts)) == np.asarray(texts, object)
        odd = ~plain[codes]
        if not odd.any():
            return numbers, []
        first = int(odd.argmax())
        return numbers, [
            f"{self.path}: {odd.sum():,} values of {name} are whole numbers that are not written "
            f"in plain digits; the first is {shown(texts[codes[first]])} in "
            f"line {self.lines[first]}, "
            f"read as {numbers[first]}"
        ]


def _whole(text: str) -> int:
    """The number that `text` writes in digits, perhaps with a fraction of zeros; else -1."""
    digits, _, fraction = text.strip().removeprefix("+").partition(".")
    if not (digits.isascii() and digits.isdigit()) or fraction.strip("0"):
        return -1
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 10 and int(digits) <= _LARGEST else -1


def read_table(path: Path, separator: str, needed: tuple[str, ...]) -> Table:
    """Read a table in UTF-8 with a header; quotes as in RFC 4180.

    Args:
        path: of the file.
        separator: of cells.
        needed: columns that have to be there.

    Raises:
        UserError: no plain file, empty, not in UTF-8, a column that appears twice or is missing, a
            row that has not as many cells as the header; with file and line.
        OSError: it cannot be read.
    """
    if plain_size(path) > host_bytes():
        raise UserError(f"{path}: is larger than the memory of this machine")
    with open_plain(path) as file:
        raw = file.read().removeprefix(b"\xef\xbb\xbf")
    if not raw or raw.isspace():
        raise UserError(f"{path}: the file is empty, expected a header and rows")
    _check_bytes(path, raw)
    names = _header(path, raw, separator, needed)
    cells = None if b'"' in raw else _regular(raw, separator, len(names))
    if cells is None:
        rows = list(_rows(path, raw, separator, len(names)))
        # Without a row there would be no columns.
        cells = pd.DataFrame([row for _, row in rows], columns=range(len(names)), dtype=str)
        lines = np.array([line for line, _ in rows], np.int64)
    else:
        lines = np.arange(len(cells)) + 2
    cells.columns = names
    past = len(cells)
    if past and not any(cells.iloc[-1]):
        filled = np.flatnonzero((cells != "").any(axis=1).to_numpy())
        past = int(filled[-1]) + 1 if len(filled) else 0
    return Table(path, cells[:past], lines[:past])


def _regular(raw: bytes, separator: str, width: int) -> pd.DataFrame | None:
    """The cells below the header if no line has more or fewer of them than the header, else None.

    The fast way for nearly every file. All others are read line by line.
    """
    try:
        cells = pd.read_csv(
            io.BytesIO(raw),
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            quoting=csv.QUOTE_NONE,
            encoding="utf-8",
        )
    except (pd.errors.ParserError, UnicodeDecodeError):
        return None
    # pandas fills up lines that are too short.
    if raw.count(separator.encode()) != (width - 1) * len(cells) or (width == 1):
        return None
    return cells[1:].reset_index(drop=True)


def _check_bytes(path: Path, raw: bytes) -> None:
    """Refuse what is no text, and lines without end."""
    if raw[:2] in OTHER_TEXT:
        raise UserError(f"{path}, line 1: begins like {OTHER_TEXT[raw[:2]]}, expected UTF-8")
    if (at := raw.find(b"\0")) >= 0:
        raise UserError(f"{path}, line {_line(raw, at)}: holds a NUL byte, expected text in UTF-8")
    end, begun = _line_end(raw), 0
    while len(raw) - begun > _LONGEST_LINE:
        past = raw.rfind(end, begun, begun + _LONGEST_LINE) + 1
        if not past:
            raise UserError(
                f"{path}, line {_line(raw, begun)}: has more than {_LONGEST_LINE:,} bytes, "
                "expected a row of a table"
            )
        begun = past


def _line_end(raw: bytes) -> bytes:
    """What ends the lines: line feeds, or carriage returns where there are none."""
    return b"\n" if b"\n" in raw else b"\r"


def _line(raw: bytes, at: int) -> int:
    """In which line a byte is, counted from 1."""
    return raw.count(_line_end(raw), 0, at) + 1


def _header(path: Path, raw: bytes, separator: str, needed: tuple[str, ...]) -> list[str]:
    """The columns' names, without the spaces around them."""
    _, cells = next(csv_rows(path, _text(raw), separator))
    names = [name.strip() for name in cells]
    for name in needed:
        if name not in names:
            found = shown(", ".join(names))
            raise UserError(
                f"{path}, line 1: no column {name}, found {found}; expected a header with "
                f"{', '.join(needed)}"
            )
    for name, count in Counter(names).items():
        if count > 1 and name:
            raise UserError(
                f"{path}, line 1: the column {shown(name)} appears {count} times, expected every "
                "name once"
            )
    return names


def _rows(path: Path, raw: bytes, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row below the header."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line(raw, error.start)
        column = error.start - (raw.rfind(_line_end(raw), 0, error.start) + 1) + 1
        raise UserError(
            f"{path}, line {line}: byte {raw[error.start]:#04x} at column {column} is not UTF-8, "
            "expected text in UTF-8"
        ) from None
    blank = 0
    for line, row in csv_rows(path, _text(raw), separator):
        if line == 1:
            continue
        if not row:
            blank = blank or line
        elif blank and any(row):
            raise UserError(f"{path}, line {blank}: is blank, expected {width} cells")
        elif len(row) != width:
            count = f"{len(row)} cell{'s' * (len(row) > 1)}"
            raise UserError(f"{path}, line {line}: {count}, expected {width} as in the header")
        elif not blank:
            yield line, row


def _text(raw: bytes) -> io.TextIOWrapper:
    # Bytes that are not UTF-8 are refused when the rows are read.
    return io.TextIOWrapper(io.BytesIO(raw), "utf-8", errors="backslashreplace", newline="")


def csv_rows(path: Path, lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and cells, of every row of a table; quotes as in RFC 4180.

    Args:
        path: of the file, for the sentence of a complaint.
        lines: of the file, with their ends.
        separator: of cells.

    Raises:
        UserError: a quoted cell that does not end.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader, begun = csv.reader(lines, delimiter=separator, strict=True), 1
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
            raise UserError(f"{path}, line {begun}: {reason}") from None
        yield begun, row
        begun = reader.line_num + 1
