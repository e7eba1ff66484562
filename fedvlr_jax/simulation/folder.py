"""The folder of a run: whose it is, and whether a configuration may go on in it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fedvlr_jax import record
from fedvlr_jax.config import Config, having
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.files import (
    LOCK,
    check_folder,
    has_hard_links,
    has_locks,
    has_symbolic_links,
    is_leftover,
    locked,
    plain_size,
    read_json,
    write_json,
)
from fedvlr_jax.foreign import short
from fedvlr_jax.processes import together
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation import environment
from fedvlr_jax.simulation.checkpoint import Checkpoints

_JAX = "jax"
_MAY_DIFFER = {_JAX, *having(Role.RESUMED)}  # what it was run with in JAX is compared by itself
_told: set[int] = set()  # numbers of file systems of which this process has told what they lack


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[list[str]]:
    """Make `out` the folder of this run, or check that it is, and keep other runs out.

    Of several processes that train together, the first one does so, and the others wait for it.

    Args:
        out: the folder; made if it is not there.
        settings: the resolved configuration, what it is run on (`jax`: `environment.in_force`) and
            a fingerprint of the data.

    Yields:
        What a person should know before the run goes on in it.

    Raises:
        UserError: the folder cannot be written, holds something else, holds a run with another
            setting or other data or one that is further than `rounds`, or is in use.
    """
    with _claimed(out, settings) if together.is_first() else nullcontext([]) as notes:
        together.wait("claimed")
        yield notes


@contextmanager
def _claimed(out: Path, settings: dict[str, Any]) -> Iterator[list[str]]:
    try:
        _check(out, settings)
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            notes = _weaknesses(out, settings)
            stored = read_json(out / record.CONFIG) if (out / record.CONFIG).exists() else {}
            if _is_finished(out / record.SUMMARY, settings["rounds"]):
                settings = settings | {_JAX: _environment(out, stored) or settings[_JAX]}
            elif Checkpoints(out / record.CHECKPOINTS).finished():
                began = _environment(out, stored)
                notes += [f"{out}: {note}" for note in environment.notes(began, settings[_JAX])]
                settings = settings | {_JAX: environment.joined(began, settings[_JAX])}
            if stored != settings:
                write_json(out / record.CONFIG, settings)
            yield notes
    except OSError as error:
        place = f" {error.filename}" if error.filename and str(error.filename) != str(out) else ""
        reason = error.strerror or error
        raise UnwritableError(f"--out={out}:{place} cannot be written ({reason})") from None


def _weaknesses(out: Path, settings: dict[str, Any]) -> list[str]:
    """What is weaker in this folder for want of locks and links; told once of a file system."""
    device = out.stat().st_dev
    if device in _told:
        return []
    _told.add(device)
    lacks = []
    if not has_locks(out):
        lacks.append("locks: do not start a second process in this folder, nothing would stop it")
    if not has_symbolic_links(out):
        lacks.append("symbolic links: checkpoints/best is a text file with the folder's name")
    if settings["private_state"] == "host" and not has_hard_links(out):
        lacks.append("hard links: every checkpoint takes the disk space of all private states")
    return [f"{out}: the file system has no {lack}" for lack in lacks]


def environment_of(out: Path) -> dict[str, Any]:
    """What JAX the run in a folder that is claimed has been trained with."""
    return _environment(out, read_json(out / record.CONFIG))


def _environment(out: Path, stored: dict[str, Any]) -> dict[str, Any]:
    found = stored.get(_JAX, {})
    if not isinstance(found, dict):
        raise UserError(f"{out / record.CONFIG}: {_JAX} is {short(found)}, expected an object")
    return found


def finished_summary(out: Path, rounds: int) -> dict[str, Any] | None:
    """The summary of the run in `out`, if it has finished `rounds` rounds or stopped early.

    Otherwise an older summary is taken away: only finished runs have one.
    """
    path = out / record.SUMMARY
    if together.first_says(lambda: _is_finished(path, rounds)):
        return record.summary(out)
    if together.is_first():
        path.unlink(missing_ok=True)
    return None


def _is_finished(path: Path, rounds: int) -> bool:
    if not path.exists():
        return False
    summary = record.summary(path.parent)
    return summary["rounds_done"] == rounds or summary["stopped_early"]


def _check(out: Path, settings: dict[str, Any]) -> None:
    check_folder(out)
    content = [p.name for p in out.iterdir() if not is_leftover(p)] if out.exists() else []
    if record.CONFIG in content:
        stored = read_json(out / record.CONFIG)
        _check_same(out, stored, settings)
        reason = environment.difference(_environment(out, stored), settings[_JAX])
        if reason is not None:
            raise UserError(
                f"--out={out}: holds a run that began with other settings of JAX: {reason}"
            )
    elif set(content) - {LOCK}:
        raise UserError(
            f"--out={out}: holds {content[0]} and no {record.CONFIG}, expected a new folder or "
            "that of a run"
        )
    for name in content:
        if name in record.FILES:
            plain_size(out / name)
        elif name in record.FOLDERS and not (out / name).is_dir():
            raise UserError(f"{out / name}: is not a folder, expected one that a run has written")
    rounds_done = Checkpoints(out / record.CHECKPOINTS).finished()
    if record.SUMMARY in content:  # a finished run may have kept fewer checkpoints
        rounds_done = max(rounds_done, record.summary(out)["rounds_done"])
    if rounds_done > settings["rounds"]:
        raise UserError(
            f"--rounds={settings['rounds']}: the run in {out} has done {rounds_done}, expected "
            "at least that"
        )


def _check_same(out: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    stored = Config().flat() | stored  # a run may be older than a setting
    for name in wanted:
        if name not in _MAY_DIFFER and stored.get(name) != wanted[name]:
            behind = {"data_fingerprint": "the data", "devices_fingerprint": "the devices' table"}
            what = f"{behind[name]} behind it has" if name in behind else f"--{name} was"
            found = "changed" if name in behind else short(stored.get(name))
            raise UserError(
                f"--out={out}: holds another configuration's run ({what} {found}, now "
                f"{wanted[name]}), expected the same settings or another folder"
            )
