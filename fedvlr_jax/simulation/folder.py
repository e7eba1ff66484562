"""The folder of a run: whose it is, and whether a configuration may go on in it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fedvlr_jax.config import LAYOUT
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import LOCK, is_leftover, locked, read_json, write_json
from fedvlr_jax.processes import together
from fedvlr_jax.simulation.checkpoint import Checkpoints

_CONFIG, _SUMMARY = "config.json", "summary.json"
# `rounds` may grow; the path of the data may be spelled differently, its fingerprint decides; how
# the work is laid out changes no result. Where private state is decides what a checkpoint holds.
_MAY_DIFFER = {"rounds", "data", *LAYOUT} - {"private_state"}


@contextmanager
def claimed(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Make `out` the folder of this run, or check that it is, and keep other runs out.

    Of several processes that train together, the first one does so, and the others wait for it.

    Args:
        out: the folder; made if it is not there.
        settings: the resolved configuration, what it was run on and a fingerprint of the data.

    Raises:
        UserError: the folder cannot be written, holds something else, holds a run with another
            setting or other data or one that is further than `rounds`, or is in use.
    """
    with _claimed(out, settings) if together.is_first() else nullcontext():
        together.wait("claimed")
        yield


@contextmanager
def _claimed(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    try:
        _check(out, settings)
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            if not (out / _CONFIG).exists() or read_json(out / _CONFIG) != settings:
                write_json(out / _CONFIG, settings)
            yield
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror or error})") from None


def finished_summary(out: Path, rounds: int) -> dict[str, Any] | None:
    """The summary of the run in `out`, if it has finished `rounds` rounds or stopped early.

    Otherwise an older summary is taken away: only finished runs have one.
    """
    path = out / _SUMMARY
    if together.first_says(lambda: _is_finished(path, rounds)):
        return read_json(path)
    if together.is_first():
        path.unlink(missing_ok=True)
    return None


def _is_finished(path: Path, rounds: int) -> bool:
    if not path.exists():
        return False
    summary = read_json(path)
    return summary.get("rounds_done") == rounds or bool(summary.get("stopped_early"))


def _check(out: Path, settings: dict[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: is a file, expected a folder")
    content = [p.name for p in out.iterdir() if not is_leftover(p)] if out.exists() else []
    if _CONFIG in content:
        _check_same(out, read_json(out / _CONFIG), settings)
    elif set(content) - {LOCK}:
        raise UserError(
            f"--out={out}: holds {content[0]} and no {_CONFIG}, expected a new folder or that of "
            "a run"
        )
    rounds_done = max(Checkpoints(out / "checkpoints").rounds(), default=0)
    if _SUMMARY in content:  # a finished run may have kept fewer checkpoints
        rounds_done = max(rounds_done, read_json(out / _SUMMARY)["rounds_done"])
    if rounds_done > settings["rounds"]:
        raise UserError(
            f"--rounds={settings['rounds']}: the run in {out} has done {rounds_done}, expected "
            "at least that"
        )


def _check_same(out: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in wanted:
        if name not in _MAY_DIFFER and stored.get(name) != wanted[name]:
            what = "the data behind it has" if name == "data_fingerprint" else f"--{name} was"
            found = "changed" if name == "data_fingerprint" else f"{stored.get(name)}"
            raise UserError(
                f"--out={out}: holds another configuration's run ({what} {found}, now "
                f"{wanted[name]}), expected the same settings or another folder"
            )
