"""The folder of a data set in the making: whose it is, and whether it is finished."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.files import (
    LOCK,
    UNFINISHED,
    check_folder,
    is_leftover,
    locked,
    read_json,
    write_json,
)
from fedvlr_jax.foreign import short
from fedvlr_jax.prepare.options import leaves
from fedvlr_jax.settings import Role, with_role

_DONE = "dataset.json"
_COUNTS = ("users", "items", "train")  # that are told of a finished data set
_BEGUN = f"{UNFINISHED}settings.json"
_MAY_DIFFER = with_role(leaves(), Role.LAYOUT)
_MAY_DIFFER_UNFINISHED = with_role(leaves(), Role.RESUMED)


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Make `out` the folder of this preparation, or check that it is, and keep others out.

    A mistake that ends a preparation takes along what it has made, if it was the first to work
    here; anything else that ends one leaves it to be gone on with. Where nothing has been encoded,
    there is nothing to go on with, and the folder is anybody's again.

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
                    if not fresh and _is_empty(out):
                        _remove(out)  # what another attempt with other settings has begun
                    write_json(out / _BEGUN, settings)
                with _inputs_blamed(out):
                    yield finished
            except BaseException as error:
                if finished is not None:
                    (out / LOCK).unlink(missing_ok=True)
                elif (fresh and isinstance(error, UserError)) or _is_empty(out):
                    _remove(out)
                    (out / LOCK).unlink(missing_ok=True)
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


def _is_empty(out: Path) -> bool:
    """Whether a preparation has begun here, but nothing has been encoded or drawn."""
    for path in out.iterdir():
        if path.name.startswith(UNFINISHED) and path.is_dir():
            if any(part.stat().st_size for part in path.glob("*.f16")):
                return False
        elif path.name != LOCK and not is_leftover(path):
            return False
    return True


def _remove(out: Path) -> None:
    """Remove everything in a folder but its lock."""
    for path in out.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    check_folder(out)
    content = {p.name for p in out.iterdir()} if out.exists() else set()
    if _DONE in content:
        summary = read_json(out / _DONE)
        if not _is_whole(summary):
            raise UserError(f"{out / _DONE}: not what a preparation has written")
        _check_same(out, summary["settings"], settings, _MAY_DIFFER)
        return summary
    if _BEGUN in content:
        if not _is_empty(out):
            _check_same(out, read_json(out / _BEGUN), settings, _MAY_DIFFER_UNFINISHED)
        return None
    others = sorted(name for name in content - {LOCK} if not is_leftover(Path(name)))
    if others:
        raise UserError(
            f"--out={out}: holds {others[0]} and no {_DONE}, expected a new or empty folder"
        )
    return None


def _is_whole(summary: dict[str, Any]) -> bool:
    """Whether what is asked of a dataset.json is there; a hand may have been at it."""
    kept, files = summary.get("kept"), summary.get("raw_files")
    return (
        isinstance(summary.get("settings"), dict)
        and isinstance(kept, dict)
        and all(type(kept.get(name)) is int for name in _COUNTS)
        and isinstance(files, list)
        and all(
            isinstance(file, dict) and all(isinstance(file.get(k), str) for k in ("path", "sha256"))
            for file in files
        )
    )


def _check_same(
    out: Path, stored: dict[str, Any], wanted: dict[str, Any], may_differ: tuple[str, ...]
) -> None:
    for name, value in wanted.items():
        if name not in may_differ and stored.get(name) != value:
            raise UserError(
                f"--out={out}: holds a data set with other settings (--{name} was "
                f"{short(stored.get(name))}, now {value}), expected the same or another folder"
            )
