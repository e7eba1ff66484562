"""The result of reading a source (`Raw`), and the builder that checks its interactions."""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64

from fedvlr_jax.data.raw.ids import (
    Codes,
    as_whole_numbers,
    look_alikes,
    placeholders,
    spelled,
    whole,
)
from fedvlr_jax.data.raw.lines import TextFile
from fedvlr_jax.data.raw.times import Clock, day_first, hardly_times, units_apart
from fedvlr_jax.data.text import shown
from fedvlr_jax.errors import UserError


@dataclass(frozen=True)
class Log:
    """Interactions in the order they were read.

    `users[c]` and `items[c]` are the original ids of code c, in order of first appearance; event k
    is (`user[k]`, `item[k]`, `time[k]`), time in whatever unit the source uses.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: Int64[np.ndarray, " events"]
    item: Int64[np.ndarray, " events"]
    time: Float64[np.ndarray, " events"]


@dataclass(frozen=True)
class Raw:
    """A source after reading.

    Attributes:
        log: the interactions.
        titles: text of an item by its original id, where it has one; None if the source has no
            texts at all.
        pictures: path below the picture folder by original item id, where the source names them;
            None if a picture is named after its item.
        features: ready-made features by modality ("image", "text"), a row per item code.
        user_columns: more columns of users.csv by name, a value per user code.
        files: the files that were read.
        notes: sentences for the user about how the files were read.
    """

    log: Log
    titles: Mapping[str, str] | None
    pictures: Mapping[str, str] | None = None
    features: Mapping[str, Float[np.ndarray, "items width"]] = field(default_factory=dict)
    user_columns: Mapping[str, Sequence] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class LogBuilder:
    """Collects events one by one in compact arrays, from the cells of a file.

    A row whose user, item or time is missing is left out and counted. `log` checks what one row
    alone does not show. Afterwards `notes` has the notes for the user.

    Example:
        >>> builder = LogBuilder()
        >>> builder.add("ann", "lamp", 10)
        >>> builder.add("bob", "lamp", "20.0")
        >>> builder.add("NULL", "lamp", 30)
        >>> log = builder.log()
        >>> log.users, log.items, log.user.tolist(), log.time.tolist()
        (['ann', 'bob'], ['lamp'], [0, 1], [10.0, 20.0])
        >>> builder.notes
        ["the log, line 0: the user is 'NULL', a missing value; 1 of 3 rows is left out"]
    """

    def __init__(self, names: tuple[str, str, str] = ("the user", "the item", "the time")) -> None:
        self.notes: list[str] = []
        self._names = names
        self._users, self._items, self._clock = Codes(), Codes(), Clock()
        self._user, self._item, self._time = array("q"), array("q"), array("d")
        self._line = array("q")
        self._files: list[TextFile] = []
        self._begins: list[int] = []  # the first event of each file
        self._left_out: dict[str, list] = {}  # by column: how many rows, and the first of them

    def begin(self, file: TextFile) -> None:
        """The events that follow are those of `file`."""
        self._files.append(file)
        self._begins.append(len(self._line))

    def add(self, user: Any, item: Any, time: Any, line: int = 0) -> None:
        """Append one event.

        Args:
            user: the user's id, as it stands in the file.
            item: the item's id.
            time: number or date.
            line: where it stands.

        Raises:
            UserError: a cell is not what it should be.
        """
        try:
            user_code, item_code = self._users[user], self._items[item]
            moment = self._clock.read(time)
        except (ValueError, TypeError):
            raise self._refused((user, item, time), line) from None
        if user_code < 0 or item_code < 0 or moment != moment:
            self._leave_out(
                0 if user_code < 0 else 1 if item_code < 0 else 2, user, item, time, line
            )
            return
        self._user.append(user_code)
        self._item.append(item_code)
        self._time.append(moment)
        self._line.append(line)

    def log(self) -> Log:
        """The events so far.

        Raises:
            UserError: there are none, most rows miss something, an id is spelled in several ways
                that may be several ids, or times are of several units.
        """
        self.notes = []
        self._judge_left_out()
        time = np.array(self._time, np.float64)
        self._judge_times(time)
        users, user = self._column(0, self._users, self._user)
        items, item = self._column(1, self._items, self._item)
        return Log(users, items, user, item, time)

    def where(self, event: int) -> str:
        """File and line of an event."""
        return self._where(self._line[event], bisect_right(self._begins, event) - 1)

    def refuse(self, event: int, found: str) -> UserError:
        """The error to raise about one event."""
        return UserError(f"{self.where(event)}: {found}")

    def _where(self, line: int, file: int = -1) -> str:
        return f"{self._files[file].path if self._files else 'the log'}, line {line}"

    def _refused(self, cells: tuple[Any, Any, Any], line: int) -> UserError:
        """The error about the first wrong cell."""
        readers = (spelled, spelled, self._clock.read)
        for name, cell, read in zip(self._names, cells, readers, strict=True):
            try:
                read(cell)
            except ValueError as error:
                return UserError(f"{self._where(line)}: {name} is {shown(cell)}, {error}")
        raise AssertionError("one of the cells was refused")

    def _leave_out(self, place: int, *row: Any) -> None:
        """Count a row whose cell at `place` is missing, and keep the first one."""
        name = self._names[place]
        if name not in self._left_out:
            self._left_out[name] = [0, f"{self._where(row[-1])}: {name} is {shown(row[place])}"]
        self._left_out[name][0] += 1

    def _judge_left_out(self) -> None:
        """Add notes about rows with missing values; an error if these are most rows."""
        counts = [count for count, _ in self._left_out.values()]
        rows = len(self._line) + sum(counts)
        if not rows:
            path = self._files[-1].path if self._files else "the log"
            raise UserError(f"{path}: no interaction, expected a row for each")
        for count, first in self._left_out.values():
            if 2 * sum(counts) > rows and count == max(counts):
                raise UserError(
                    f"{first}, a missing value, as in {count:,} of {rows:,} rows, expected a value "
                    "in most of them; it may be the wrong column"
                )
            verb = "is" if count == 1 else "are"
            self.notes.append(
                f"{first}, a missing value; {count:,} of {rows:,} rows {verb} left out"
            )

    def _judge_times(self, time: Float64[np.ndarray, " events"]) -> None:
        name = self._names[2]
        apart = units_apart(time) if self._clock.is_number else None
        if apart:
            low, high, factor = apart
            raise self.refuse(
                high,
                f"{name} is {time[high]:.15g}, about {factor:,} times that of "
                f"{self.where(low)} ({time[low]:.15g}), expected one unit for all times, not "
                "seconds in some rows and milliseconds in others",
            )
        if self._clock.is_number and day_first(time):
            raise self.refuse(
                0,
                f"{name} is {time[0]:.15g}, and all times look like dates with the year last, "
                "expected the year first, as in 2026-01-31, so that they sort in order of time",
            )
        unit = "" if self._clock.is_number else " seconds since 1970"
        ours = ("above 100,000,000", "before the year 2100")
        for odd, most, end in zip(hardly_times(time), ours, ("oldest", "newest"), strict=True):
            if len(odd):
                first = int(odd[0])
                self.notes.append(
                    f"{self.where(first)}: {name} is {time[first]:.15g}{unit}, but most times are "
                    f"{most}; {len(odd):,} of {len(time):,} rows have such "
                    "times, which are read as "
                    f"the {end}"
                )

    def _column(
        self, place: int, codes: Codes, column: array
    ) -> tuple[list[str], Int64[np.ndarray, " events"]]:
        """Ids in the order of their first event, and every event's code."""
        events = np.array(column, np.int64)
        try:
            ids = as_whole_numbers(codes.ids)
        except ValueError as error:
            event = int((events == codes.ids.index(str(error))).argmax())
            raise self.refuse(
                event,
                f"{self._names[place]} is {str(error)!r} beside {whole(str(error))!r}, expected "
                "one spelling; other ids here are not whole numbers, so the two may differ",
            ) from None
        self._tell_odd_ids(place, ids or codes.ids, events)
        if ids is None and not self._left_out:
            return codes.ids, events
        if ids is not None:
            respelled = np.array([a != b for a, b in zip(ids, codes.ids, strict=True)])[events]
            if respelled.any():
                event = int(respelled.argmax())
                self.notes.append(
                    f"{self.where(event)}: {self._names[place]} is "
                    f"{codes.ids[events[event]]!r}, a whole number with a decimal point, as in "
                    f"{respelled.sum():,} of {len(events):,} rows; the point is left out: "
                    f"{ids[events[event]]!r}"
                )
        # Two spellings are one id now, and some ids were in rows only that are left out.
        code, present = pd.factorize(np.array(ids or codes.ids, object)[events])
        return present.tolist(), code

    def _tell_odd_ids(
        self, place: int, ids: Sequence[str], events: Int64[np.ndarray, " events"]
    ) -> None:
        """Add notes about ids that look like another, or may mean an unknown user or item."""
        name, rows = self._names[place], np.bincount(events, minlength=len(ids))
        alike = [(a, b) for a, b in look_alikes(ids) if ids[a] != ids[b] and rows[a] and rows[b]]
        if alike:
            later, earlier = alike[0]
            self.notes.append(
                f"{self.where(int((events == later).argmax()))}: {name} is {shown(ids[later])} "
                f"beside {shown(ids[earlier])}; ids that differ from an earlier one only in case, "
                f"zeros, signs, quotes or how letters are encoded ({len(alike):,} of {len(ids):,}) "
                "are read as different ids"
            )
        for code in placeholders(ids):
            if rows[code]:
                self.notes.append(
                    f"{self.where(int((events == code).argmax()))}: {name} is {shown(ids[code])}, "
                    f"which may mean that it is unknown; the rows with it ({rows[code]:,} of "
                    f"{len(events):,}) are read as one id"
                )
