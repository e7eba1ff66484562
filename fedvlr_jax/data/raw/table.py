"""Any table of interactions with a header, and if wanted another one about the items."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.types import LogBuilder, Raw
from fedvlr_jax.data.text import plain
from fedvlr_jax.errors import UserError

_PATTERNS = ("*.csv", "*.tsv", "*.txt")
_DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `title` and `picture` are columns of the items' table."""

    user: str
    item: str
    time: str
    title: str | None = None
    picture: str | None = None


def read(raw: Path, columns: Columns, items: Path | None = None) -> Raw:
    """Read a table of interactions.

    Args:
        raw: the table, or a folder with exactly one beside the items' table.
        columns: what the columns are called. Times are numbers or ISO 8601 dates.
        items: table of the items, which has the item column, too.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    path = raw if raw.is_file() else _only_table(raw, items)
    builder, clock = LogBuilder(), _Clock(columns.time)
    file = TextFile(path)
    for line, (user, item, time) in _rows(file, (columns.user, columns.item, columns.time)):
        builder.add(
            file.identifier(line, columns.user, user),
            file.identifier(line, columns.item, item),
            clock.read(file, line, time),
        )
    notes = list(file.notes)
    titles = {} if items and columns.title else None
    pictures = {} if items and columns.picture else None
    if items:
        file, known_items = TextFile(items), 0
        wanted = [name for name in (columns.item, columns.title, columns.picture) if name]
        for line, cells in _rows(file, wanted):
            known = dict(zip(wanted, cells, strict=True))
            item = file.identifier(line, columns.item, known[columns.item])
            known_items += item in builder
            for column, into in ((columns.title, titles), (columns.picture, pictures)):
                if into is not None and item in builder and plain(known[column]):
                    into.setdefault(item, plain(known[column]))
        notes += file.notes
        if not known_items:
            example = builder.log().items[0]
            raise UserError(
                f"{items}: none of its rows is about an item of {path}, expected values of "
                f"{columns.item} like {example}"
            )
    read_files = (path, items) if items else (path,)
    return Raw(builder.log(), titles, pictures, files=read_files, notes=tuple(notes))


def _only_table(folder: Path, items: Path | None) -> Path:
    found = [
        path
        for pattern in _PATTERNS
        for end in ("", ".gz")
        for path in sorted(folder.glob(pattern + end))
        if path.is_file() and (items is None or not path.samefile(items))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise UserError(f"--raw={folder}: found {names}, expected the one table, or its own path")
    return find_one(folder, _PATTERNS, "table of interactions")


def _rows(file: TextFile, wanted: list[str] | tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The wanted cells; the delimiter is the one that makes the first wanted column appear."""
    header = next(TextFile(file.path).lines()).rstrip("\r\n")
    for delimiter in _DELIMITERS:
        if wanted[0] in (cell.strip('"') for cell in header.split(delimiter)):
            return file.table(delimiter, wanted)
    return file.table(_DELIMITERS[0], wanted)


class _Clock:
    """Reads one column of times, all of them of the first one's kind.

    A number stays as it is; an ISO 8601 date becomes seconds since 1970, in UTC where it names no
    zone. A column of several kinds would put interactions into an order that nobody meant.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind = ""

    def read(self, file: TextFile, line: int, text: str) -> float:
        """One time; raises UserError where it is no time or of another kind."""
        kind, value = self._parsed(file, line, text)
        self._kind = self._kind or kind
        if kind != self._kind:
            raise file.refuse(
                line,
                f"{self._name} is {text!r}, {kind}, expected {self._kind} as in the lines above",
            )
        return value

    def _parsed(self, file: TextFile, line: int, text: str) -> tuple[str, float]:
        try:
            return "a number", file.number(line, self._name, text)
        except UserError:
            pass
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise file.refuse(
                line,
                f"{self._name} is {text!r}, expected a number or a date like 2026-01-31 12:00:00",
            ) from None
        if moment.tzinfo:
            return "a date with a time zone", moment.timestamp()
        return "a date without a time zone", moment.replace(tzinfo=UTC).timestamp()
