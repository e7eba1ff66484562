"""Private states of the clients that have taken part, in the host's memory and in files.

States are only ever added, as a segment that never changes; a client's newest row is the one that
counts. So a segment is written to disk at most once, and a checkpoint is a set of hard links.
Segments without live rows are dropped, and the sparsest are rewritten as one while more than half
of all rows are dead. When memory is full, the oldest segment goes to a file.
"""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from fedvlr_jax.files import checksum, write_array

_NOWHERE = -1
_ROWS = 16
_PAGE = 1024  # floats


class Pool:
    """Memory for segments: a fixed number of buffers, handed out, given back and used again.

    The system finds room for memory when it is first touched, which can take longer than filling it
    does, above all on virtual machines. So buffers are never returned to the system, and those that
    will be needed are touched ahead, while the programs are being compiled.

    Args:
        rows: states in a buffer.
        numbers: floats of a state.
        most: how many buffers there may be.
        soon: how many of them will be needed for sure, and are touched in the background.
    """

    def __init__(self, rows: int, numbers: int, most: int, soon: int) -> None:
        self._shape = (rows, numbers)
        self._most = most
        self._made = 0
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._touch, args=(min(soon, most),), daemon=True)
        self._thread.start()

    @property
    def rows(self) -> int:
        """States in a buffer."""
        return self._shape[0]

    def take(self) -> Float32[np.ndarray, "rows numbers"] | None:
        """A buffer, None when all are taken."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make()

    def give(self, buffer: Float32[np.ndarray, "rows numbers"]) -> None:
        """Take a buffer back."""
        with self._lock:
            self._free.append(buffer)

    def close(self) -> None:
        """Stop touching memory and let go of all that is free."""
        self._closed = True
        self._thread.join()
        self._free.clear()

    def _make(self) -> np.ndarray | None:
        with self._lock:
            if self._made == self._most:
                return None
            self._made += 1
        return np.empty(self._shape, np.float32)

    def _touch(self, soon: int) -> None:
        while not self._closed and self._made < soon:
            buffer = self._make()
            if buffer is None:
                return
            buffer.ravel()[::_PAGE] = 0
            self.give(buffer)


@dataclass
class _Segment:
    """Whose rows these are, and the states in a buffer (its first rows) or in a file."""

    clients: Int[np.ndarray, " rows"]
    buffer: Float32[np.ndarray, "most numbers"] | None
    file: Path | None
    live: int
    checksums: dict[str, list[int]]


class Store:
    """The states of all clients that have ever been added.

    Args:
        n_clients: number of clients U.
        numbers: floats of one state.
        folder: where segments are written that memory has no room for.
        pool: the memory; its buffers bound how many states are added at a time.
    """

    def __init__(self, n_clients: int, numbers: int, folder: Path, pool: Pool) -> None:
        self._numbers = numbers
        self._folder = folder
        self._pool = pool
        self._next = 0
        self._segments: dict[int, _Segment] = {}
        self._segment_of = np.full(n_clients, _NOWHERE, np.int32)
        self._row_of = np.zeros(n_clients, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of all states that count, one for every client that has taken part."""
        return int((self._segment_of != _NOWHERE).sum()) * self._numbers * 4

    def has(self, clients: Int[np.ndarray, " n"]) -> np.ndarray:
        """Which of the clients have a state here."""
        return self._segment_of[clients] != _NOWHERE

    def fetch(
        self,
        clients: Int[np.ndarray, " n"],
        into: Float32[np.ndarray, "rows numbers"],
        rows: Int[np.ndarray, " n"],
    ) -> None:
        """Copy the states of `clients`, all of which are here, to `rows` of `into`."""
        numbers = self._segment_of[clients]
        for number in np.unique(numbers).tolist():
            wanted = np.flatnonzero(numbers == number)
            states = self._states(number)
            # A few rows at a time: the copy that numpy makes on the way stays in the cache.
            for some in np.split(wanted, range(_ROWS, len(wanted), _ROWS)):
                into[rows[some]] = states[self._row_of[clients[some]]]

    def add(
        self,
        clients: Int[np.ndarray, " rows"],
        states: Float32[np.ndarray, "rows numbers"],
    ) -> None:
        """Take the newest states of some clients, as many as a buffer holds."""
        buffer = self._buffer()
        buffer[: len(clients)] = states
        self._append(clients, buffer)
        self._compact()

    def write(self, folder: Path) -> dict[str, list[int]]:
        """Write all that counts to a new folder; size and checksum of every file, by its name."""
        folder.mkdir()
        found = {}
        for number in sorted(self._segments):
            segment = self._to_file(number)
            for name, known in segment.checksums.items():
                _link(self._folder / name, folder / name)
                found[name] = known
        return found

    def read(self, folder: Path) -> None:
        """Take everything that was written to `folder` in the place of what is here."""
        self.clear()
        self._folder.mkdir(parents=True)
        for path in sorted(folder.glob("*.clients.npy")):
            number = int(path.name.split(".")[0])
            names = _names(number)
            for name in names:
                _link(folder / name, self._folder / name)
            known = {name: checksum(self._folder / name) for name in names}
            self._register(number, np.load(path), None, self._folder / names[1], known)

    def clear(self) -> None:
        """Forget everything, in memory and on disk; checkpoints keep what they hold."""
        for number in list(self._segments):
            self._drop(number)
        self._segment_of[:] = _NOWHERE
        self._next = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def _append(self, clients: np.ndarray, buffer: np.ndarray) -> None:
        self._register(self._next, clients, buffer, None, {})

    def _buffer(self) -> np.ndarray:
        """A free buffer; the oldest segment in memory goes to a file if there is none."""
        buffer = self._pool.take()
        if buffer is None:
            oldest = min(n for n, segment in self._segments.items() if segment.buffer is not None)
            segment = self._to_file(oldest)
            buffer, segment.buffer = segment.buffer, None
        return buffer

    def _register(
        self,
        number: int,
        clients: np.ndarray,
        buffer: np.ndarray | None,
        file: Path | None,
        checksums: dict[str, list[int]],
    ) -> None:
        rows = np.flatnonzero(clients >= 0)
        owners = clients[rows]
        for old, count in zip(
            *np.unique(self._segment_of[owners], return_counts=True), strict=True
        ):
            if old != _NOWHERE:
                self._segments[old].live -= count
        self._segments[number] = _Segment(clients, buffer, file, len(clients), checksums)
        self._segment_of[clients], self._row_of[clients] = number, np.arange(len(clients))
        self._next = max(self._next, number + 1)
        for dead in [n for n, segment in self._segments.items() if not segment.live]:
            self._drop(dead)

    def _states(self, number: int) -> np.ndarray:
        segment = self._segments[number]
        if segment.buffer is not None:
            return segment.buffer
        return np.load(segment.file, mmap_mode="r")

    def _compact(self) -> None:
        """Rewrite the sparsest segments as one while there are more dead rows than live ones."""
        size = self._pool.rows
        while self._rows() > 2 * sum(s.live for s in self._segments.values()) + 2 * size:
            share = {n: s.live / len(s.clients) for n, s in self._segments.items()}
            moved = np.arange(0)
            for number in sorted(share, key=share.get):
                owners = self._segments[number].clients
                moved = np.concatenate([moved, owners[self._segment_of[owners] == number]])
                if len(moved) >= size:
                    break
            moved = moved[:size]
            buffer = self._buffer()
            self.fetch(moved, buffer, np.arange(len(moved)))
            self._append(moved, buffer)

    def _rows(self) -> int:
        return sum(len(segment.clients) for segment in self._segments.values())

    def _to_file(self, number: int) -> _Segment:
        segment = self._segments[number]
        if segment.file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            clients, states = (self._folder / name for name in _names(number))
            write_array(states, segment.buffer[: len(segment.clients)])
            write_array(clients, segment.clients)
            segment.file = states
            segment.checksums = {path.name: checksum(path) for path in (clients, states)}
        return segment

    def _drop(self, number: int) -> None:
        segment = self._segments.pop(number)
        if segment.buffer is not None:
            self._pool.give(segment.buffer)
        for name in segment.checksums:
            (self._folder / name).unlink()


def newest(folder: Path, client: int) -> Float32[np.ndarray, " numbers"] | None:
    """The state of a client that counts in a folder that `Store.write` made, None without one."""
    for path in sorted(folder.glob("*.clients.npy"), reverse=True):
        places = np.flatnonzero(np.load(path) == client)
        if len(places):
            number = int(path.name.split(".")[0])
            return np.load(folder / _names(number)[1], mmap_mode="r")[places[0]]
    return None


def _names(number: int) -> tuple[str, str]:
    return f"{number:08d}.clients.npy", f"{number:08d}.states.npy"


def _link(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
