"""The folder of a data set in the making: whose it is, and whether it is finished."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.files import LOCK, UNFINISHED, is_unfinished, locked, read_json, write_json

_DONE = "dataset.json"
_BEGUN = f"{UNFINISHED}settings.json"
_MAY_DIFFER = ("batch", "workers")  # how fast, not what
_MAY_DIFFER_UNFINISHED = ("workers",)  # rows of another batch shape may be rounded otherwise


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Make `out` the folder of this preparation, or check that it is, and keep others out.

    A mistake that ends a preparation takes along what it has made, if it was the first to work
    here; anything else that ends one leaves it to be gone on with.

    Yields:
        The content of dataset.json if the preparation has finished before.

    Raises:
        UserError: the folder cannot be written, holds something else or other settings, or is in
            use.
    """
    made = False
    try:
        _check(out, settings)
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            # Once more, now that nobody else can change it.
            finished = _check(out, settings)
            fresh = finished is None and not (out / _BEGUN).exists()
            try:
                if finished is None:
                    write_json(out / _BEGUN, settings)
                with _inputs_blamed(out):
                    yield finished
            except UserError:
                if fresh:
                    _empty(out)
                elif finished is not None:
                    (out / LOCK).unlink()
                raise
            for leftover in out.glob(f"{UNFINISHED}*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            (out / LOCK).unlink()
    except BrokenPipeError:
        raise  # of the terminal
    except UserError:
        with contextlib.suppress(OSError):
            if made:
                out.rmdir()  # if there is nothing left in it
        raise
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror or error})") from None


@contextmanager
def _inputs_blamed(out: Path) -> Iterator[None]:
    """Turn what the system says of a file outside `out` into a sentence about that file."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename or out)
        if path == out or out in path.parents:
            raise
        raise UserError(f"{path}: cannot be used ({error.strerror or error})") from None


def _empty(out: Path) -> None:
    """Remove everything in a folder, the lock last."""
    for path in out.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (out / LOCK).unlink()


def _check(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: is a file, expected a folder")
    content = {p.name for p in out.iterdir()} if out.exists() else set()
    if _DONE in content:
        summary = read_json(out / _DONE)
        stored = summary.get("settings")
        if not isinstance(stored, dict) or not {"kept", "raw_files"} <= set(summary):
            raise UserError(f"{out / _DONE}: not what a preparation has written")
        _check_same(out, stored, settings, _MAY_DIFFER)
        return summary
    if _BEGUN in content:
        _check_same(out, read_json(out / _BEGUN), settings, _MAY_DIFFER_UNFINISHED)
        return None
    others = sorted(name for name in content - {LOCK} if not is_unfinished(Path(name)))
    if others:
        raise UserError(
            f"--out={out}: holds {others[0]} and no {_DONE}, expected a new or empty folder"
        )
    return None


def _check_same(
    out: Path, stored: dict[str, Any], wanted: dict[str, Any], may_differ: tuple[str, ...]
) -> None:
    for name, value in wanted.items():
        if name not in may_differ and stored.get(name) != value:
            raise UserError(
                f"--out={out}: holds a data set with other settings (--{name} was "
                f"{stored.get(name)}, now {value}), expected the same or another folder"
            )
