"""What has become of a sweep's runs: rows that are only ever added, and who is working on what.

Which runs train together is written down before they do. So a run that was interrupted goes on in
the same program, to the same numbers.

Rows are in an SQLite database, so a kill at any moment leaves a whole row or none, and several
processes add to it. A claim is a locked file: the system lets go of it when its process ends, in
whatever way.
"""

import contextlib
import fcntl
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax import files
from fedvlr_jax.errors import UserError

FINISHED, FAILED = "finished", "failed"
_PATIENCE = 60.0  # seconds to wait while another process writes
_TABLES = (
    """CREATE TABLE IF NOT EXISTS attempts (
        run TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY (run, attempt))""",
    """CREATE TABLE IF NOT EXISTS groups (
        run TEXT PRIMARY KEY, first TEXT NOT NULL, place INTEGER NOT NULL)""",
)


@dataclass(frozen=True)
class Row:
    """How the last attempt at a run ended.

    Attributes:
        status: `FINISHED` or `FAILED`.
        content: settings and summary, or settings and `reason`.
    """

    status: str
    content: dict[str, Any]


class Store:
    """The rows and claims of the sweep in one folder, which is made if it is not there.

    Raises:
        UserError: the folder cannot be written, or its database is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._claims = folder / "runs.sqlite", folder / "claims"
        self._table = folder / ".table.lock"
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out={folder}: cannot be written ({error.strerror})") from None
        with self._open() as database:
            for table in _TABLES:
                database.execute(table)

    def add(self, run: str, status: str, content: dict[str, Any]) -> None:
        """Add what an attempt at a run has come to."""
        with self._open() as database:
            database.execute(
                "INSERT INTO attempts SELECT ?, 1 + COUNT(*), ?, ? FROM attempts WHERE run = ?",
                (run, status, json.dumps(content, allow_nan=False), run),
            )

    def rows(self) -> dict[str, Row]:
        """Every run's last attempt."""
        with self._open() as database:
            found = database.execute("SELECT run, status, content FROM attempts ORDER BY attempt")
            return {run: Row(status, json.loads(content)) for run, status, content in found}

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
    def claimed(self, run: str) -> Iterator[bool]:
        """Whether the run is this process's to do, inside; False where another one has it."""
        with open(self._claims / run, "a") as file:
            yield files.take_lock(file)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process writes what is made of the rows, and keep them from it."""
        with open(self._table, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

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


def _place(database: sqlite3.Connection, group: Sequence[str]) -> None:
    for place, run in enumerate(group):
        database.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (run, group[0], place))
