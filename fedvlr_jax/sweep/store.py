"""What has become of a sweep's runs: rows that are only ever added, and who is working on what.

Which runs train together is written down before they do. So a run that was interrupted goes on in
the same program, to the same numbers.

Rows are in an SQLite database, so a kill at any moment leaves a whole row or none, and several
processes add to it.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax import files, record
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.sweep.claims import Claims

FINISHED, FAILED = "finished", "failed"
DATABASE = "runs.sqlite"
_PATIENCE = 60.0  # seconds to wait while another process writes
_MOST = files.MOST_TEXT  # bytes of a row
_TABLES = (
    """CREATE TABLE IF NOT EXISTS attempts (
        run TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, settings TEXT NOT NULL,
        content TEXT NOT NULL, PRIMARY KEY (run, attempt))""",
    """CREATE TABLE IF NOT EXISTS groups (
        run TEXT PRIMARY KEY, first TEXT NOT NULL, place INTEGER NOT NULL)""",
)


@dataclass(frozen=True)
class Row:
    """How the last attempt at a run ended.

    Attributes:
        status: `FINISHED` or `FAILED`.
        settings: of the run, by name.
        content: the summary, or the `reason`.
    """

    status: str
    settings: dict[str, Any]
    content: dict[str, Any]


class Store(Claims):
    """The rows and claims of the sweep in one folder, which is made if it is not there.

    Raises:
        UserError: the folder cannot be written, or its database is damaged.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / DATABASE
        if self._path.exists():
            files.plain_size(self._path)
        with self._open() as database:
            for table in _TABLES:
                database.execute(table)

    def add(self, run: str, row: Row) -> None:
        """Add what an attempt at a run has come to."""
        with self._open() as database:
            database.execute(
                "INSERT INTO attempts SELECT ?, 1 + COUNT(*), ?, ?, ? FROM attempts WHERE run = ?",
                (run, row.status, _json(row.settings), _json(row.content), run),
            )

    def rows(self) -> dict[str, Row]:
        """Every run's last attempt.

        Raises:
            UserError: a row is not a sweep's.
        """
        with self._open() as database:
            # The last attempt of each; SQLite takes the other columns from the row of the maximum.
            found = database.execute(
                "SELECT run, status, settings, content, MAX(attempt) FROM attempts GROUP BY run "
                "ORDER BY MAX(attempt), rowid"
            )
            return {run: self._row(run, *parts) for run, *parts, _ in found}

    def _row(self, run: Any, status: Any, settings: Any, content: Any) -> Row:
        where = f"{self._path}, run {short(run)!r}"
        if not all(isinstance(x, str) for x in (run, status, settings, content)):
            raise UserError(f"{where}: holds something other than text, expected a sweep's row")
        if status not in (FINISHED, FAILED):
            raise UserError(
                f"{where}: its status is {short(status)!r}, expected {FINISHED} or {FAILED}"
            )
        row = Row(
            status,
            files.parse_json(settings, f"{where}, settings"),
            files.parse_json(content, f"{where}, content"),
        )
        if status == FAILED and not isinstance(row.content.get("reason"), str):
            raise UserError(f"{where}, content: has no reason, expected a sweep's")
        fault = record.wrong_entry(row.content) if status == FINISHED else None
        if fault is not None:
            raise UserError(f"{where}, content: {fault}, expected a summary")
        return row

    def groups(self) -> list[list[str]]:
        """Runs that train together, in order.

        Raises:
            UserError: a row is not a sweep's.
        """
        with self._open() as database:
            rows = database.execute("SELECT first, run FROM groups ORDER BY first, place")
            found: dict[str, list[str]] = {}
            for first, run in rows:
                if not isinstance(first, str) or not isinstance(run, str):
                    raise UserError(
                        f"{self._path}, groups: holds something other than text, expected a sweep's"
                    )
                found.setdefault(first, []).append(run)
        return list(found.values())

    def add_groups(self, groups: Sequence[Sequence[str]]) -> None:
        """Write down groups, but for those of which another process has placed a run."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            known = {run for (run,) in database.execute("SELECT run FROM groups")}
            for group in groups:
                if not known.intersection(group):
                    _place(database, group)

    def part(self, group: Sequence[str]) -> None:
        """Let the runs of a group train alone from now on."""
        with self._open() as database:
            for run in group:
                _place(database, [run])

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are on disk together at the end, or not at all."""
        try:
            # What is not locked must be told so: SQLite would wait for a lock.
            address = self._path.absolute().as_uri() + ("" if self.has_locks else "?nolock=1")
            connection = sqlite3.connect(address, timeout=_PATIENCE, uri=True)
            with contextlib.closing(connection) as database, database:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST)
                yield database
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            kind = UnwritableError if is_of_disk(code) else UserError
            raise kind(f"{self._path}: cannot be used ({error})") from None


def is_of_disk(code: int) -> bool:
    """Whether SQLite says by its code that a disk is full, or fails, or may not be written."""
    return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False)


def _place(database: sqlite3.Connection, group: Sequence[str]) -> None:
    for place, run in enumerate(group):
        database.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (run, group[0], place))
