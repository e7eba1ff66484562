"""The folder of a data set in the making: whose it is, and whether it is finished."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.files import LOCK, UNFINISHED, is_unfinished, locked, read_json, write_json

_DONE = "dataset.json"
_BEGUN = f"{UNFINISHED}settings.json"
_MAY_DIFFER = ("batch", "workers")  # how fast, not what


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Make `out` the folder of this preparation, or check that it is, and keep others out.

    Yields:
        The content of dataset.json if the preparation has finished before.

    Raises:
        UserError: the folder cannot be written, holds something else or other settings, or is in
            use.
    """
    try:
        finished = _check(out, settings)
        if finished is not None:
            yield finished
            return
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            write_json(out / _BEGUN, settings)
            try:
                yield None
            except UserError:
                # A mistake that was found before anything was made should leave nothing behind.
                if {p.name for p in out.iterdir()} <= {_BEGUN, LOCK}:
                    _leave(out)
                raise
            _leave(out)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror or error})") from None


def _leave(out: Path) -> None:
    """Remove the marks of a preparation under way, and the folder if it is empty then."""
    for name in (_BEGUN, LOCK):
        (out / name).unlink()
    if not any(out.iterdir()):
        out.rmdir()


def _check(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: is a file, expected a folder")
    content = {p.name for p in out.iterdir()} if out.exists() else set()
    if _DONE in content:
        summary = read_json(out / _DONE)
        _check_same(out, summary.get("settings", {}), settings)
        return summary
    if _BEGUN in content:
        _check_same(out, read_json(out / _BEGUN), settings)
        return None
    others = sorted(name for name in content - {LOCK} if not is_unfinished(Path(name)))
    if others:
        raise UserError(
            f"--out={out}: holds {others[0]} and no {_DONE}, expected a new or empty folder"
        )
    return None


def _check_same(out: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if name not in _MAY_DIFFER and stored.get(name) != value:
            raise UserError(
                f"--out={out}: holds a data set with other settings (--{name} was "
                f"{stored.get(name)}, now {value}), expected the same or another folder"
            )
