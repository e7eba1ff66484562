"""Read any table of interactions, and optionally a table of the items.

RecBole's atomic files (`.inter` and `.item`, recbole.io/docs) are such tables: tabs between cells,
and a type in each column's name (`user_id:token`), which may be left out of the flags.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedvlr_jax.data.raw.items import ItemTable
from fedvlr_jax.data.raw.lines import TextFile, column_names, find
from fedvlr_jax.data.raw.log import LogBuilder, Raw
from fedvlr_jax.data.raw.times import is_time
from fedvlr_jax.data.text import is_missing, shown
from fedvlr_jax.errors import UserError

_PATTERNS = ("*.csv", "*.tsv", "*.txt", "*.inter")
_DELIMITERS = (",", "\t", ";", "|", " ")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `title` and `picture` are columns of the items' table.

    `names` are those of all columns of a table of interactions without a header.
    """

    user: str
    item: str
    time: str
    title: str | None = None
    picture: str | None = None
    names: tuple[str, ...] | None = None


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
    builder = LogBuilder((columns.user, columns.item, columns.time))
    file = TextFile(path)
    builder.begin(file)
    for line, cells in _interactions(file, columns):
        builder.add(*cells, line)
    log = builder.log()
    notes = [*file.notes, *builder.notes]
    if not items:
        return Raw(log, None, files=(path,), notes=tuple(notes))
    file, goods = TextFile(items), ItemTable(log, columns.item)
    wanted = [name for name in (columns.item, columns.title, columns.picture) if name]
    for line, cells in file.table(_delimiter(file, wanted), wanted):
        known = dict(zip(wanted, cells, strict=True))
        item = goods.find(file, line, known[columns.item])
        if item is not None and columns.title:
            goods.add_title(item, goods.title(file, line, known[columns.title]))
        if item is not None and columns.picture:
            goods.add_picture(file, line, item, known[columns.picture])
    notes += file.notes + goods.finish([file], path)
    return Raw(
        log,
        goods.titles if columns.title else None,
        goods.pictures if columns.picture else None,
        files=(path, items),
        notes=tuple(notes),
    )


def _only_table(folder: Path, items: Path | None) -> Path:
    """The one table in a folder that is not the items' table."""
    found = find(folder, _PATTERNS, "table of interactions")
    logs = [path for path in found if items is None or not path.samefile(items)] or found
    if len(logs) > 1:
        names = ", ".join(path.name for path in logs)
        raise UserError(f"--raw={folder}: found {names}, expected the one table, or its own path")
    return logs[0]


def _interactions(file: TextFile, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """Line number, user, item and time of every row."""
    wanted = (columns.user, columns.item, columns.time)
    if columns.names is None:
        yield from file.table(_delimiter(file, wanted, is_log=True), wanted)
        return
    first = file.top()[0]
    for delimiter in _DELIMITERS:
        cells = _cells(first, delimiter)
        if len(cells) == len(columns.names):
            break
    else:
        raise file.refuse(1, f"expected {len(columns.names)} cells, one for each name in --columns")
    time = cells[columns.names.index(columns.time)]
    if not is_missing(time) and not is_time(time):
        raise file.refuse(
            1,
            f"{columns.time} is {shown(time)}, expected a time; if this line is a header, leave "
            "out --columns",
        )
    yield from file.table(delimiter, wanted, columns.names)


def _delimiter(file: TextFile, wanted: Sequence[str], is_log: bool = False) -> str:
    """The delimiter that makes most of the wanted columns appear, the first of several.

    There may be lines above the header, which the reader of the table tells of.

    Raises:
        UserError: a log in which no line has a name of a column, and the first one has a time.
    """
    top = file.top()

    def appear(delimiter: str) -> int:
        rows = ([column_names(cell) for cell in _cells(line, delimiter)] for line in top)
        return max(sum(any(name in cell for cell in row) for name in wanted) for row in rows)

    best = max(_DELIMITERS, key=appear)
    if is_log and not appear(best):
        for cells in (_cells(top[0], delimiter) for delimiter in _DELIMITERS):
            if len(cells) >= len(wanted) and any(is_time(cell) for cell in cells):
                found = ", ".join(cell[:40] for cell in cells[:20])
                raise file.refuse(
                    1,
                    f"no column {wanted[0]}, found {found}, which looks like data; a file without "
                    "a header needs names for its columns, as in --columns=user,item,time",
                )
    return best


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [""])
    except csv.Error:  # reading the table raises it with its line
        return [line]
