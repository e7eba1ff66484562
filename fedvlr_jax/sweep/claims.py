"""Who is working on what in a folder that several processes share.

A claim is a locked file: the system lets go of it when its process ends, in whatever way. Where the
file system has no locks, everything is this process's, and it has to be the only one.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fedvlr_jax import files
from fedvlr_jax.errors import UnwritableError, UserError

# What sweeps and searches write into their folder, beside what they are known by.
_MADE = ("report.html", "results.csv", "scaling.png", "trials.csv", "search.png", "best.yaml")


class Claims:
    """The claims of the processes on one folder, which is made if it is not there.

    Raises:
        UserError: the folder cannot be written, or holds files of somebody else's that would be
            replaced.

    Attributes:
        has_locks: whether several processes can share the folder.
    """

    def __init__(self, folder: Path) -> None:
        files.check_folder(folder)
        self._claims, self._table = folder / "claims", folder / ".table.lock"
        if not self._claims.exists() and not list(folder.glob("*.sqlite")):
            for name in _MADE:
                if (folder / name).exists():
                    raise UserError(
                        f"--out={folder}: holds {name}, but no sweep or search that wrote it; "
                        "expected a new folder, or that of a sweep or search"
                    )
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
            self.has_locks = files.has_locks(folder)
        except OSError as error:
            path = error.filename or folder
            raise UnwritableError(
                f"--out={folder}: {path} cannot be written ({error.strerror})"
            ) from None

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Whether `name` is this process's to do, inside; False where another one has it."""
        with files.open_lock(self._claims / name) as file:
            yield files.take_lock(file)

    @contextlib.contextmanager
    def waited_for(self, name: str) -> Iterator[None]:
        """Wait until no other process has `name`, and then have it."""
        with _waiting(self._claims / name):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process decides or writes for all of them, and keep them from it."""
        with _waiting(self._table):
            yield


@contextlib.contextmanager
def _waiting(path: Path) -> Iterator[None]:
    with files.open_lock(path) as file:
        files.wait_for_lock(file)
        yield


def without_locks(folder: Path) -> str:
    """What a person should know of a folder whose file system has no locks."""
    return (
        f"{folder}: the file system has no locks: do not start a second process in this folder, "
        "both would train every run"
    )
