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

from fedvlr_jax.errors import UserError
from fedvlr_jax.sweep.claims import Claims

FINISHED, FAILED = "finished", "failed"
DATABASE = "runs.sqlite"
_PATIENCE = 60.0  # seconds to wait while another process writes
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
        """Every run's last attempt."""
        with self._open() as database:
            found = database.execute(
                "SELECT run, status, settings, content FROM attempts ORDER BY attempt"
            )
            return {run: Row(status, *map(json.loads, parts)) for run, status, *parts in found}

    def groups(self) -> list[list[str]]:
        """Runs that train together, in order."""
        with self._open() as database:
            rows = database.execute("SELECT first, run FROM groups ORDER BY first, place")
            found: dict[str, list[str]] = {}
            for first, run in rows:
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
            with (
                contextlib.closing(sqlite3.connect(self._path, timeout=_PATIENCE)) as database,
                database,
            ):
                yield database
        except sqlite3.Error as error:
            raise UserError(f"{self._path}: cannot be used ({error})") from None


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False)


def _place(database: sqlite3.Connection, group: Sequence[str]) -> None:
    for place, run in enumerate(group):
        database.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (run, group[0], place))
