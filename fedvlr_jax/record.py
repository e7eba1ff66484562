"""The files of a run's folder, checked before they are used, as people may have edited them.

Every function here names the file in its errors, and reads no more than a run would have written.
"""

import contextlib
import math
import sys
import zipfile
import zlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from fedvlr_jax import files
from fedvlr_jax.analysis.metrics import selection
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import short, words_of
from fedvlr_jax.names import MODALITIES

CONFIG, SUMMARY = "config.json", "summary.json"
EVALUATIONS, RANKINGS, PER_USER = "metrics.jsonl", "rankings.npz", "per_user.npz"
FILES = (CONFIG, SUMMARY, EVALUATIONS, RANKINGS, PER_USER)
CHECKPOINTS, PRIVATE, EVENTS = "checkpoints", "private", "events"
FOLDERS = (CHECKPOINTS, PRIVATE, EVENTS)
RUNS_FOLDER = "runs"  # in the folder of a sweep, search or study
_MOST_LINES = 1 << 30  # bytes of metrics.jsonl
_MOST_COLUMNS = 10_000
_DEFLATED = 1_100  # bytes that deflate makes of one, at most
# What reading an archive ends in that somebody has cut or made.
_OF_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, SyntaxError),
    *(RuntimeError, MemoryError, OverflowError, zlib.error, zipfile.BadZipFile),
)
# Entries of a summary by which others are read.
_OBJECTS = ("valid", "test", "popularity", "timing", "memory", "data")
_EXPECTED = "expected what a run has written"
_NEEDED = ("rounds_done", "best_round", "stopped_early", "valid", "test", "popularity", "timing")


class _Array(NamedTuple):
    """What an array of a run holds: kinds of its numbers (numpy's letters), and its dimensions."""

    kinds: str
    dimensions: int


ARRAYS = {
    RANKINGS: {"users": _Array("iu", 1), "topk": _Array("iu", 2)},
    PER_USER: {
        "user": _Array("iu", 1),
        "rank": _Array("iu", 1),
        "history_length": _Array("iu", 1),
        "warm": _Array("b", 1),
        "views": _Array("U", 1),
        "view_weights": _Array("f", 2),
        "reliance": _Array("f", 2),
    },
}


def check_finished(run: Path) -> None:
    """Refuse what is not the folder of a finished run.

    Raises:
        UserError: a file that every finished run has is missing, or its summary is not a run's.
    """
    for name in (CONFIG, SUMMARY, RANKINGS, PER_USER):
        if not (run / name).is_file():
            what = "an unfinished run" if (run / CONFIG).is_file() else "no run"
            several = (
                f"; {run / RUNS_FOLDER} has several, which fedvlr_jax.open_sweep opens"
                if (run / RUNS_FOLDER).is_dir()
                else ""
            )
            raise UserError(
                f"--run={run}: {what} ({name} is missing), expected a finished one{several}"
            )
    summary(run)


def finished(folder: Path) -> list[Path]:
    """The folders of a sweep's finished runs, by name; that of a run is the only one of its own.

    Raises:
        UserError: there are none.
    """
    places = [folder] if (folder / SUMMARY).is_file() else sorted(folder.glob(f"{RUNS_FOLDER}/*"))
    runs = [p for p in places if (p / SUMMARY).is_file() and (p / CONFIG).is_file()]
    if not runs:
        what = "holds no finished run" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {what}, expected the folder (--out) of experiments.sweep "
            "or experiments.train"
        )
    return runs


def settings(run: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """A run's config.json.

    Args:
        run: its folder.
        needed: names that have to be there.

    Raises:
        UserError: it is not a run's.
    """
    path = run / CONFIG
    content = files.read_json(path)
    _refuse_missing(path, content, needed)
    for name, value in content.items():
        if isinstance(value, dict | list) and name != "jax":
            raise UserError(f"{path}: {short(name)} is not a single value, {_EXPECTED}")
    return content


def summary(run: Path, needed: Sequence[str] = _NEEDED) -> dict[str, Any]:
    """A finished run's summary.json, of which the entries are checked that others are read by.

    Args:
        run: its folder.
        needed: names that have to be there; of what is in an object, like `test/warm/hr@50`.

    Raises:
        UserError: it is not a run's.
    """
    path = run / SUMMARY
    content = files.read_json(path)
    reason = wrong_entry(content)
    if reason is not None:
        raise UserError(f"{path}: {reason}, {_EXPECTED}")
    parts = {f"{name}/{entry}" for name in _OBJECTS for entry in content.get(name, ())}
    _refuse_missing(path, {*content, *parts}, needed)
    return content


def _refuse_missing(where: Path | str, names: Container[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            raise UserError(f"{where}: {name} is missing, {_EXPECTED}")


def wrong_entry(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the entries of a summary that are there, None if nothing is."""
    for name in ("rounds_done", "best_round"):
        if type(content.get(name, 0)) is not int or not 0 <= content.get(name, 0) < 1 << 53:
            return f"{name} is not a number of rounds"
    if type(content.get("stopped_early", False)) is not bool:
        return "stopped_early is neither true nor false"
    for name in _OBJECTS:
        if not isinstance(content.get(name, {}), dict):
            return f"{name} is not an object"
    parts = {name: content.get(name, {}) for name in ("valid", "test", "timing", "memory")}
    popularity = content.get("popularity", {})
    parts |= {f"popularity/{name}": popularity.get(name, {}) for name in ("valid", "test")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            return f"{name} is not an object"
        for entry, value in part.items():
            if not _is_number(value):
                return f"{name}/{short(entry)} is not a number"
    return None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or None, which stands for one that there is not."""
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where the run has not been evaluated.

    A last line that is cut is left out: another process may be writing it, or was killed.

    Raises:
        UserError: a line is not a run's.
    """
    path = run / EVALUATIONS
    if not path.exists():
        return []
    *lines, last = files.read_text(path, _MOST_LINES).split("\n")
    measured = [_evaluation(f"{path}, line {k}", line) for k, line in enumerate(lines, 1)]
    with contextlib.suppress(UserError):
        measured.append(_evaluation(str(path), last))
    return measured


def _evaluation(where: str, line: str) -> dict[str, Any]:
    numbers = files.parse_json(line, where)
    if type(numbers.get("round")) is not int or numbers["round"] < 0:
        raise UserError(f"{where}: round is not a number of rounds, {_EXPECTED}")
    needed = selection(name for name in numbers if name.startswith("valid/"))
    _refuse_missing(where, numbers, (f"valid/{needed}",))
    for name, value in numbers.items():
        if not _is_number(value):
            raise UserError(f"{where}: {short(name)} is not a number, {_EXPECTED}")
    return numbers


def rankings(run: Path) -> dict[str, np.ndarray]:
    """`users` and `topk` of a finished run, see docs/outputs.md.

    Raises:
        UserError: they are not a run's.
    """
    return _arrays(run / RANKINGS, tuple(ARRAYS[RANKINGS]))


def per_user(run: Path, needed: Sequence[str] = ("user", "rank")) -> dict[str, np.ndarray]:
    """The arrays of a finished run's per_user.npz, see docs/outputs.md.

    Args:
        run: its folder.
        needed: arrays that have to be there; an older run may have fewer.

    Raises:
        UserError: they are not a run's.
    """
    path = run / PER_USER
    arrays = _arrays(path, needed)
    if "views" in arrays and arrays["view_weights"].shape[1] != len(arrays["views"]):
        raise UserError(f"{path} is damaged (view_weights does not have a column for every view)")
    if "reliance" in arrays and arrays["reliance"].shape[1] != len(MODALITIES):
        raise UserError(f"{path} is damaged (reliance does not have a column for every modality)")
    return arrays


def _arrays(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a file, each with a row for every one of the users."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with files.open_plain(path) as file, zipfile.ZipFile(file) as archive:
            there = set(archive.namelist())
            for key, wanted in ARRAYS[path.name].items():
                if key in needed or f"{key}.npy" in there:
                    arrays[key] = _array(archive, key, wanted)
    except UserError:
        raise
    except _OF_DAMAGE as error:
        raise UserError(f"{path} is damaged ({words_of(error)})") from None
    name, ids = next(iter(arrays.items()))
    if (np.diff(ids.astype(np.int64)) <= 0).any() or (len(ids) and ids[0] < 0):
        raise UserError(f"{path} is damaged (the ids in {name} are not in ascending order)")
    for key, array in arrays.items():
        if key != "views" and len(array) != len(ids):
            raise UserError(
                f"{path} is damaged ({key} has {len(array):,} rows for {len(ids):,} users)"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{path} is damaged ({key} has numbers that are not finite)")
    return arrays


def _array(archive: zipfile.ZipFile, key: str, wanted: _Array) -> np.ndarray:
    """An array of an archive, whose header is judged before it is read.

    Raises:
        ValueError: it is of another kind, or larger than what it was written from.
    """
    member = archive.getinfo(f"{key}.npy")
    if member.file_size > _DEFLATED * (member.compress_size + 1):
        raise ValueError(f"{key} claims more bytes than the file can hold")
    with archive.open(member) as file:
        shape, _, dtype = files.read_array_header(file)
        if dtype.kind not in wanted.kinds or len(shape) != wanted.dimensions:
            raise ValueError(f"{key} is not an array of the kind that a run writes")
        if math.prod(shape) * dtype.itemsize > member.file_size or max(shape[1:], default=0) > (
            _MOST_COLUMNS
        ):
            raise ValueError(
                f"the header of {key} says that its shape is {shape}, which the file does not hold"
            )
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
