"""What has become of the runs of a folder, and which process works on which.

Everything is rows of one SQLite database, so that a kill at any moment leaves a whole row or none,
and several processes add to it: how every attempt at a run ended; what a search tries; and which
runs train together. That is written down before they do, so that a run that was interrupted goes on
in the same program, to the same numbers.

A run is claimed by locking a file: the system lets go of it when its process ends, in whatever way.
Where the file system has no locks, everything is this process's, and it has to be the only one.
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

FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"
DATABASE = "runs.sqlite"
_PATIENCE = 60.0  # seconds to wait while another process writes
_MOST = files.MOST_TEXT  # bytes of a row
# What sweeps and searches write into their folder, beside what they are known by.
_MADE = (
    *("report.html", "results.csv", "scaling.png", "study.json"),
    *("trials.csv", "search.png", "best.yaml"),
)
_OLDER_SEARCH = "study.sqlite"
_KIND = "kind"  # the fact that says whose folder it is
_TABLES = (
    """CREATE TABLE IF NOT EXISTS attempts (
        run TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, settings TEXT NOT NULL,
        content TEXT NOT NULL, PRIMARY KEY (run, attempt))""",
    """CREATE TABLE IF NOT EXISTS groups (
        run TEXT PRIMARY KEY, first TEXT NOT NULL, place INTEGER NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS trials (number INTEGER PRIMARY KEY, params TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Row:
    """How the last attempt at a run ended.

    Attributes:
        status: `FINISHED`, `PRUNED` or `FAILED`.
        settings: of the run, by name.
        content: the summary, or the `reason`.
    """

    status: str
    settings: dict[str, Any]
    content: dict[str, Any]


class Ledger:
    """The rows and claims of one folder, which is made if it is not there.

    Args:
        folder: of a sweep, a search, ...
        kind: which of them.

    Raises:
        UserError: the folder cannot be written, holds something of another kind or files of
            somebody else's that would be replaced, or its database is damaged.

    Attributes:
        folder: as given.
        has_locks: whether several processes can share the folder.
    """

    def __init__(self, folder: Path, kind: str = "sweep") -> None:
        files.check_folder(folder)
        self.folder, self._path = folder, folder / DATABASE
        self._rows: dict[str, Row] = {}
        self._last = 0  # of the rows that were read
        self._claims, self._table = folder / "claims", folder / ".table.lock"
        _refuse_others(folder, known=self._claims.exists() or self._path.exists())
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
            self.has_locks = files.has_locks(folder)
        except OSError as error:
            path = error.filename or folder
            raise UnwritableError(
                f"--out={folder}: {path} cannot be written ({error.strerror})"
            ) from None
        if self._path.exists():
            files.plain_size(self._path)
        with self._open() as database:
            for table in _TABLES:
                database.execute(table)
        # Only sweeps had rows when nobody wrote down whose they are.
        older = self._read("SELECT 1 FROM attempts LIMIT 1")
        known = self.settled(_KIND, "sweep" if older else kind)
        if known != kind:
            raise UserError(f"--out={folder}: holds a {short(known)}, expected another folder")

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
            UserError: a row is not one that `add` has written.
        """
        # Rows are only ever added: those that were read before need not be read again.
        for number, run, *parts in self._read(
            "SELECT rowid, run, status, settings, content FROM attempts WHERE rowid > ? "
            "ORDER BY rowid",
            self._last,
        ):
            self._rows[run] = self._row(run, *parts)
            self._last = number
        return dict(self._rows)

    def _row(self, run: Any, status: Any, settings: Any, content: Any) -> Row:
        where = f"{self._path}, run {short(run)!r}"
        if not all(isinstance(x, str) for x in (run, status, settings, content)):
            raise UserError(f"{where}: holds something other than text, expected a run's row")
        if status not in (FINISHED, PRUNED, FAILED):
            raise UserError(
                f"{where}: its status is {short(status)!r}, expected {FINISHED}, {PRUNED} or "
                f"{FAILED}"
            )
        row = Row(
            status,
            files.parse_json(settings, f"{where}, settings"),
            files.parse_json(content, f"{where}, content"),
        )
        if status != FINISHED and not isinstance(row.content.get("reason"), str):
            raise UserError(f"{where}, content: has no reason, expected why the run ended")
        fault = record.wrong_entry(row.content) if status == FINISHED else None
        if fault is not None:
            raise UserError(f"{where}, content: {fault}, expected a summary")
        return row

    def groups(self) -> list[list[str]]:
        """Runs that train together, in order.

        Raises:
            UserError: a row is not one that `add_groups` has written.
        """
        groups: dict[str, list[str]] = {}
        for first, run in self._read("SELECT first, run FROM groups ORDER BY first, place"):
            if not isinstance(first, str) or not isinstance(run, str):
                raise UserError(f"{self._path}, groups: holds something other than text")
            groups.setdefault(first, []).append(run)
        return list(groups.values())

    def add_groups(self, groups: Sequence[Sequence[str]]) -> None:
        """Write down groups, but for those of which another process has grouped a run."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            known = {run for (run,) in database.execute("SELECT run FROM groups")}
            for group in groups:
                if not known.intersection(group):
                    _place(database, group)

    def ungroup(self, group: Sequence[str]) -> None:
        """Let the runs of a group train alone from now on."""
        with self._open() as database:
            for run in group:
                _place(database, [run])

    def trials(self) -> list[dict[str, Any]]:
        """The values that a search tries, in the order in which they were suggested.

        Raises:
            UserError: a row is not one that `add_trial` has written.
        """
        rows = self._read("SELECT number, params FROM trials ORDER BY number")
        if [number for number, _ in rows] != list(range(len(rows))):
            raise UserError(f"{self._path}, trials: a number is missing, expected 0, 1, 2, ...")
        return [self._parsed(params, f"trial {number}") for number, params in rows]

    def add_trial(self, params: dict[str, Any]) -> None:
        """Write down what a search tries next."""
        with self._open() as database:
            database.execute("INSERT INTO trials SELECT COUNT(*), ? FROM trials", (_json(params),))

    def settled(self, name: str, value: Any) -> Any:
        """What is known under a name; `value`, from now on, if nothing was."""
        with self._open() as database:
            fact = (name, _json({"value": value}))
            database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", fact)
        ((text,),) = self._read("SELECT value FROM facts WHERE name = ?", name)
        return self._parsed(text, f"fact {name}").get("value")

    def _parsed(self, text: Any, what: str) -> dict[str, Any]:
        where = f"{self._path}, {what}"
        if not isinstance(text, str):
            raise UserError(f"{where}: holds something other than text")
        return files.parse_json(text, where)

    @contextlib.contextmanager
    def claimed(self, run: str) -> Iterator[bool]:
        """Whether a run is this process's to do, inside; False where another one has it."""
        with files.open_lock(self._claims / _file_name(run)) as file:
            yield files.take_lock(file)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process decides or writes for all of them, and keep them from it."""
        with files.open_lock(self._table) as file:
            files.wait_for_lock(file)
            yield

    def _read(self, question: str, *values: Any) -> list[tuple]:
        with self._open() as database:
            return database.execute(question, values).fetchall()

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
            # Whether SQLite says that a disk is full, or fails, or may not be written.
            of_disk = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
                sqlite3.SQLITE_FULL,
                sqlite3.SQLITE_IOERR,
                sqlite3.SQLITE_READONLY,
            )
            kind = UnwritableError if of_disk else UserError
            raise kind(f"{self._path}: cannot be used ({error})") from None


def without_locks(folder: Path) -> str:
    """What a person should know of a folder whose file system has no locks."""
    return (
        f"{folder}: the file system has no locks: do not start a second process in this folder, "
        "both would train every run"
    )


def _refuse_others(folder: Path, known: bool) -> None:
    if (folder / _OLDER_SEARCH).exists():
        raise UserError(
            f"--out={folder}: holds {_OLDER_SEARCH}, a search of an older version; expected "
            "another folder"
        )
    for name in () if known else _MADE:
        if (folder / name).exists():
            raise UserError(
                f"--out={folder}: holds {name}, but no sweep or search that wrote it; expected a "
                "new folder, or that of a sweep or search"
            )


def _file_name(run: str) -> str:
    """The name of a run's lock; names with folders in them have no file name of their own."""
    return run.replace("/", "|")


def _json(content: Any) -> str:
    return json.dumps(content, allow_nan=False)


def _place(database: sqlite3.Connection, group: Sequence[str]) -> None:
    for place, run in enumerate(group):
        database.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (run, group[0], place))
