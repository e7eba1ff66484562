"""Claim the folder of a data set for one preparation, and check whether it is finished."""

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
_COUNTS = ("users", "items", "train")  # that the program prints for a finished data set
_BEGUN = f"{UNFINISHED}settings.json"
_MAY_DIFFER = with_role(leaves(), Role.LAYOUT)
_MAY_DIFFER_UNFINISHED = with_role(leaves(), Role.RESUMED)


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Make `out` the folder of this preparation, or check that it is, and keep others out.

    If a user's mistake ends the first preparation in a folder, its files are removed. Anything else
    that ends one leaves its files, and the same preparation continues later. If nothing has been
    encoded yet, its files are removed, too, and the folder is free for any preparation.

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
            # Again, because no other process can change it now.
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
    """Turn an error of the system about a file outside `out` into a sentence about it."""
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
    """Whether dataset.json has the entries that are read; somebody may have edited it."""
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
    stored = {name: leaf.default for name, leaf in leaves().items()} | stored  # it may be older
    for name, value in wanted.items():
        if name not in may_differ and stored.get(name) != value:
            raise UserError(
                f"--out={out}: holds a data set with other settings (--{name} was "
                f"{short(stored.get(name))}, now {value}), expected the same or another folder"
            )
