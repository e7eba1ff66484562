"""Read a table of items: their titles and the paths of their pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedvlr_jax.data.raw.ids import spelled, whole
from fedvlr_jax.data.raw.lines import TextFile
from fedvlr_jax.data.raw.log import Log
from fedvlr_jax.data.text import is_missing, plain, readable, shown
from fedvlr_jax.errors import UserError

_FEWEST = 0.1  # of the interactions; with fewer the table is about other items


class ItemTable:
    """Reads a table of items beside a log; `titles` and `pictures` are by the log's item ids.

    If several rows are about one item, the first title that is not missing is kept.
    """

    def __init__(self, log: Log, name: str = "the item") -> None:
        self.titles: dict[str, str] = {}
        self.pictures: dict[str, str] = {}
        self._log, self._name = log, name
        self._code = {item: code for code, item in enumerate(log.items)}
        self._found = np.zeros(len(log.items), bool)
        self._other: str | None = None  # an item that is not in the log
        self._counts: dict[str, list] = {}  # by what was done: how often, and the first time

    def find(self, file: TextFile, line: int, item: Any) -> str | None:
        """The id in the log of the item that a row is about; None if it is not there.

        Raises:
            UserError: it is no id.
        """
        try:
            text = spelled(item)
        except ValueError as error:
            raise file.refuse(line, f"{self._name} is {shown(item)}, {error}") from None
        if text is None:
            self._count(file, line, "items have no id", item)
            return None
        number = whole(text)
        if text not in self._code and number in self._code:
            self._count(
                file,
                line,
                "ids are whole numbers with a decimal point and are read without it",
                item,
            )
            text = number
        code = self._code.get(text)
        if code is None:
            self._other = self._other or text
            return None
        self._found[code] = True
        return text

    def title(self, file: TextFile, line: int, text: Any) -> str:
        """A title as people read it, empty where it is missing; what was done is counted."""
        if isinstance(text, int) and not isinstance(text, bool):
            text = str(text)
        if not isinstance(text, str):
            if text is not None:
                self._count(file, line, "titles are not text and count as missing", text)
            return ""
        title, done = readable(text)
        if done:
            self._count(file, line, f"titles {done}", text)
        return title

    def add_title(self, item: str, title: str) -> None:
        """Keep the title of an item that `find` has found, unless it has one or there is none."""
        if title:
            self.titles.setdefault(item, title)

    def add_picture(self, file: TextFile, line: int, item: str, name: str) -> None:
        """Keep the path of a picture of an item that `find` has found."""
        if not is_missing(name):
            self.pictures.setdefault(item, plain(name))
        elif name.strip():
            self._count(
                file,
                line,
                "names of pictures are markers of a missing value and count as missing",
                name,
            )

    def finish(self, files: Sequence[TextFile], log_file: object) -> list[str]:
        """Notes for the user about the files.

        Raises:
            UserError: hardly an interaction is about an item of the table.
        """
        path = files[0].path if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
        there = self._found[self._log.item]
        share, ours = there.mean(), self._log.items[self._log.item[there.argmin()]]
        if share < _FEWEST:
            rows = (
                f"only {there.sum():,} of the {len(there):,} interactions of {log_file} are about "
                "one of its items"
                if there.any()
                else f"none of its rows is about an item of {log_file}"
            )
            found = "" if self._other is None else f", found {self._other}"
            raise UserError(
                f"{path}: {rows}, expected values of {self._name} like {ours}{found}; the columns "
                "may be in another order"
            )
        notes = [
            f"{first}: {count:,} {done}; the first is {found}"
            for done, (count, first, found) in self._counts.items()
        ]
        if share < 1:
            notes.append(
                f"{path}: {(~there).sum():,} of the {len(there):,} interactions are about items "
                f"that are not in it, such as {ours}"
            )
        return notes

    def _count(self, file: TextFile, line: int, done: str, found: Any) -> None:
        first = [0, f"{file.path}, line {line}", shown(found)]
        self._counts.setdefault(done, first)[0] += 1
