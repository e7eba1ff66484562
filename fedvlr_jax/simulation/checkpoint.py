"""Checkpoints of a run, written by Orbax: complete or not there, checked when read.

`checkpoints/000025` holds everything after round 25; `checkpoints/best` is a symbolic link to the
round that validation likes best, for people: nothing here reads it. Where there are no such links
it is a text that holds the folder's name. The last two are kept, and the best round of each. A
folder is renamed into place when it is finished, so a kill leaves whole checkpoints only; a
checksum of every file catches what happens to one afterwards. Where several processes train
together, each writes and reads the private states of its own clients; the folder has to be one that
all of them see.
"""

import contextlib
import dataclasses
import errno
import gc
import itertools
import logging
import math
import os
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from jaxtyping import Int

from fedvlr_jax.client.flat import LAYOUT
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.files import UNFINISHED, checksum, read_json, write_json, write_text
from fedvlr_jax.foreign import words_of
from fedvlr_jax.processes import together
from fedvlr_jax.simulation.federated_round import FederationState

_KEPT = 2
_CHUNK = 4 << 20  # bytes of an array that are written at a time
_FILE = 32 << 20  # bytes of one file, about
_PATIENCE = 30.0  # seconds to wait for Orbax's threads after one has failed
_WRITES = 0.5  # seconds that a write may be under way when nobody waits for it any more
_MOST_PROGRESS = 1 << 30  # bytes
_CHECKSUMS = "checksums.json"
_NAME = re.compile(r"[0-9]{6,18}")
_OPTIONAL = ("time", "flight")  # parts of a state that are there where clients have devices
# Where the content of `Progress` is in a checkpoint, as Orbax writes it.
_PROGRESS = Path("progress") / "metadata"
# What a file system answers that takes no more, or nothing at all.
_UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ESTALE,
)
# What reading something else than was written ends in.
_OF_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
# A checkpoint that cannot be read for one of these reasons may be whole.
_UNREADABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)


@dataclass(frozen=True)
class Done:
    """What is remembered of a round of one run.

    Attributes:
        seconds: wall seconds that it took.
        loss: see `Outcome`.
        by_length: how many clients with 0, 1, ... train items trained.
        late: how many of them upload a round late.
        together: how many clients trained in all runs of the program.
        kind: of warm rounds, see `Federation.kind`.
        cut_off: how many others began for nothing.
        milliseconds: simulated ones that it took.
    """

    seconds: float
    loss: float
    by_length: Int[np.ndarray, " lengths"]
    late: int
    together: int
    kind: str = ""
    cut_off: int = 0
    milliseconds: int = 0


@dataclass(frozen=True)
class Progress:
    """What a run remembers beside its arrays.

    Attributes:
        round: rounds done.
        best_round: the evaluated round with the best validation score so far, 0 before the first.
        best_score: its score.
        since_best: evaluations since then, warm rounds left aside.
        als_undone: whether alternating passes have not raised that score, and were undone.
        stopped: whether patience has run out, or the target is reached.
        lines: the lines of metrics.jsonl up to here.
        round_seconds: wall seconds of every round so far.
        trained: clients that trained in every round so far, those that dropped out left out.
        late: how many of them uploaded a round late.
        cut_off: how many others began for nothing, by the kind of the round.
        milliseconds: simulated ones of every round so far.
        together: as `trained`, over all runs that the program trained.
        by_length: over all rounds, how many clients that trained had 0, 1, ... train items.
        warm_by_length: the same over the warm rounds of every kind alone.
        eval_seconds: wall seconds of every evaluation so far.
        compile_seconds: spent compiling, over all processes that worked on the run.
        total_seconds: spent on the run, over all processes.
        layout: of private states in the checkpoint that this is in (client/flat.py).
    """

    round: int = 0
    best_round: int = 0
    best_score: float = -1.0
    since_best: int = 0
    als_undone: bool = False
    stopped: bool = False
    lines: list[dict] = field(default_factory=list)
    round_seconds: list[float] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    cut_off: dict[str, int] = field(default_factory=dict)
    milliseconds: list[int] = field(default_factory=list)
    together: list[int] = field(default_factory=list)
    by_length: list[int] = field(default_factory=list)
    warm_by_length: dict[str, list[int]] = field(default_factory=dict)
    eval_seconds: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    total_seconds: float = 0.0
    layout: int = 0

    def after(self, rounds: Sequence[Done]) -> "Progress":
        """Progress after more rounds, not evaluated yet."""
        return dataclasses.replace(
            self,
            round=self.round + len(rounds),
            round_seconds=self.round_seconds + [done.seconds for done in rounds],
            trained=self.trained + [int(done.by_length.sum()) for done in rounds],
            late=self.late + [done.late for done in rounds],
            cut_off=_counted(self.cut_off, rounds),
            milliseconds=self.milliseconds + [done.milliseconds for done in rounds],
            together=self.together + [done.together for done in rounds],
            by_length=_added(self.by_length, rounds),
            warm_by_length=self.warm_by_length
            | {
                kind: _added(
                    self.warm_by_length.get(kind, []),
                    [done for done in rounds if done.kind == kind],
                )
                for kind in sorted({done.kind for done in rounds} - {""})
            },
        )

    @property
    def simulated_seconds(self) -> float:
        """Of all rounds so far."""
        return sum(self.milliseconds) / 1000

    @property
    def uploads(self) -> int:
        """Uploads that the server had in the last round: none from who came late, or stayed away.

        Those that were late in the round before are among them.
        """
        before = self.late[-2] if len(self.late) > 1 else 0
        return self.trained[-1] - self.late[-1] + before


def _counted(cut_off: dict[str, int], rounds: Sequence[Done]) -> dict[str, int]:
    """Clients that were cut off, by kind, with those of more rounds."""
    found = dict(cut_off)
    for done in rounds:
        if done.cut_off:
            found[done.kind] = found.get(done.kind, 0) + done.cut_off
    return found


def _added(by_length: list[int], rounds: Sequence[Done]) -> list[int]:
    """Clients by their number of train items, with those of more rounds."""
    for done in rounds:
        pairs = itertools.zip_longest(by_length, done.by_length.tolist(), fillvalue=0)
        by_length = [a + b for a, b in pairs]
    return by_length


class Checkpoints:
    """The `checkpoints/` folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def save(
        self,
        state: FederationState,
        progress: Progress,
        parts: dict[str, Callable[[Path], dict[str, list[int]]]] | None = None,
    ) -> None:
        """Write the round in `progress`, point `best` at the best round, drop old ones.

        Args:
            state: the arrays.
            progress: where the run stands.
            parts: functions that write a folder below the checkpoint's, by its name, and return
                size and checksum of every file they have put there.

        Raises:
            UnwritableError: the disk is full, or fails; what was saved before is as it was.
        """
        if together.is_first():
            self.folder.mkdir(exist_ok=True)
        together.wait("checkpoint begun")
        unfinished = self.folder / f"{UNFINISHED}{progress.round:06d}"
        content = ocp.args.Composite(
            state=_in_slices(_as_tree(state)),
            progress=ocp.args.JsonSave(asdict(dataclasses.replace(progress, layout=LAYOUT))),
        )
        with self._unwritable_told(progress.round):
            with _checkpointer() as checkpointer:
                checkpointer.save(unfinished, content)
            if together.is_first():
                known = _checksums(unfinished)
                for name, write in (parts or {}).items():
                    written = write(unfinished / name)
                    known |= {f"{name}/{file}": value for file, value in written.items()}
                write_json(unfinished / _CHECKSUMS, known)
                self._finish(unfinished, progress)
        together.wait("checkpoint finished")

    @contextlib.contextmanager
    def _unwritable_told(self, number: int) -> Iterator[None]:
        """Turn what is said of a disk that takes no more into one sentence, and make room again."""
        with _others_silent():
            try:
                yield
                return
            except Exception as error:
                if (reason := _unwritable(error)) is None:
                    raise
                _forget(error)
            _let_others_end()
        if together.is_first():
            with contextlib.suppress(OSError):
                self.clean()
        raise UnwritableError(
            f"{self.folder}: the checkpoint of round {number} cannot be written ({reason}); what "
            "was saved before is whole, and the same command goes on from it"
        )

    def _finish(self, unfinished: Path, progress: Progress) -> None:
        """Give a whole checkpoint its name, and remove those that are not needed any more."""
        step = self.step(progress.round)
        if os.path.lexists(step):  # no checkpoint: those of later rounds are gone by now
            self._remove(progress.round)
        unfinished.rename(step)
        self.point_at_best(progress)
        rounds = self.rounds()
        # An older checkpoint that is gone back to needs the best round of its own time.
        kept = {progress.best_round, *map(self._best_at, rounds[-_KEPT:])}
        for number in rounds[:-_KEPT]:
            if number not in kept:
                self._remove(number)

    def point_at_best(self, progress: Progress) -> None:
        """Make `checkpoints/best` a link to the best round's folder, in one step."""
        target = self.step(progress.best_round)
        if not progress.best_round or not target.is_dir():
            return
        if self._link.is_dir() and not self._link.is_symlink():
            _discard(self._link)  # a copy of the run that followed the link
        temporary = self.folder / f"{UNFINISHED}best"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target.name)
        except OSError:  # no such links here
            write_text(self._link, target.name + "\n")
        else:
            os.replace(temporary, self._link)

    def thin(self, kept: str, best: int) -> None:
        """Remove what is not wanted of a finished run.

        Args:
            kept: one of `KEPT_CHECKPOINTS`.
            best: the best round.
        """
        there = set(self.rounds())
        wanted = {"all": there, "best": {best}, "none": set()}[kept]
        if best not in wanted and os.path.lexists(self._link):
            _discard(self._link)
        for number in there - wanted:
            self._remove(number)

    def rounds(self) -> list[int]:
        """The rounds that have a folder of their name, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(path.name)
            for path in self.folder.iterdir()
            if _NAME.fullmatch(path.name) and path == self.step(int(path.name)) and path.is_dir()
        )

    def finished(self) -> int:
        """The last round that has a checkpoint, 0 without one; what only looks like one is none."""
        rounds = (n for n in self.rounds() if (self.step(n) / _CHECKSUMS).is_file())
        return max(rounds, default=0)

    def clean(self) -> None:
        """Remove what a killed save left behind."""
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            _discard(leftover)

    def latest(self, like: FederationState) -> tuple[FederationState, Progress, list[str]] | None:
        """The newest checkpoint that can be read; damaged newer ones are removed.

        Args:
            like: a state of the same shapes and shardings (arrays or `jax.ShapeDtypeStruct`).

        Returns:
            State, progress and a sentence for each damaged checkpoint; None where nothing was
            saved.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        complaints = []
        for number in reversed(self.rounds()):
            try:
                state, progress = self.load(number, like)
            except DamagedError as damage:
                complaints.append(f"{damage}; going back to the checkpoint before it")
                continue
            together.wait("checkpoint read")
            for damaged in self.rounds() if together.is_first() else ():
                if damaged > number:
                    self._remove(damaged)
            return state, progress, complaints
        if complaints:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged; remove the run's folder to start anew"
            )
        return None

    def load(self, number: int, like: FederationState) -> tuple[FederationState, Progress]:
        """The checkpoint of one round.

        Args:
            number: the round.
            like: see `latest`; where its `private` is None, clients' states are not read.

        Raises:
            DamagedError: a file is missing, cut, or differs from what was written.
            UserError: the system cannot read it now; it may be whole. Or another version made it.
        """
        step = self.step(number)
        with _damage_told(step):
            if not together.first_says(lambda: _is_whole(step)):
                raise DamagedError(f"{step}: the checkpoint is damaged (checksums differ)")
            progress = _progress(read_json(step / _PROGRESS, _MOST_PROGRESS))
            if progress.round != number:
                raise ValueError(f"it is of round {progress.round}")
        if like.private is not None:
            self.check_layout(progress)
        with _damage_told(step), _checkpointer() as checkpointer:
            wanted = _as(_as_tree(like), whole=like.private is not None)
            try:
                found = checkpointer.restore(step, ocp.args.Composite(state=wanted))
                return _from_tree(like, found["state"]), progress
            except (ValueError, KeyError, TypeError) as error:
                # Every file is as it was written, so it was written by other code.
                raise UserError(
                    f"{step}: made by another version, whose states have other parts; start anew "
                    "in another folder"
                ) from error

    def check_layout(self, progress: Progress) -> None:
        """Refuse the private states of a checkpoint in which they lie otherwise than here.

        Raises:
            UserError: they do.
        """
        if progress.layout != LAYOUT:
            raise UserError(
                f"{self.step(progress.round)}: made by an older version whose private states lie "
                "differently; start anew in another folder"
            )

    def step(self, number: int) -> Path:
        """The folder of one round's checkpoint."""
        return self.folder / f"{number:06d}"

    @property
    def _link(self) -> Path:
        return self.folder / "best"

    def _best_at(self, number: int) -> int:
        """The best round at the time of a checkpoint, 0 if that cannot be told."""
        try:
            return _progress(read_json(self.step(number) / _PROGRESS, _MOST_PROGRESS)).best_round
        except ValueError:
            return 0

    def _remove(self, number: int) -> None:
        """Remove a checkpoint; what a kill leaves of it does not look like one."""
        unfinished = self.folder / f"{UNFINISHED}gone-{number:06d}"
        if os.path.lexists(unfinished):
            _discard(unfinished)
        _discard(self.step(number).rename(unfinished))


class DamagedError(Exception):
    """A checkpoint that cannot be trusted."""


@contextlib.contextmanager
def _damage_told(step: Path) -> Iterator[None]:
    """Turn what reading something else than was written ends in into one sentence."""
    try:
        yield
    except UserError:
        raise
    except _OF_DAMAGE as error:
        reason = words_of(error)
        if isinstance(error, OSError) and error.errno in _UNREADABLE:
            raise UserError(f"{step}: the checkpoint cannot be read ({reason})") from None
        raise DamagedError(f"{step}: the checkpoint is damaged ({reason})") from error


def _as_tree(state: FederationState) -> dict:
    """A state by the names of its parts; without those that only some runs have.

    So checkpoints of versions that did not know these can be read.
    """
    tree = serialization.to_state_dict(state)
    if state.server.warmed is None:
        del tree["server"]["warmed"]
    for name in _OPTIONAL:
        if getattr(state, name) is None:
            del tree[name]
    return tree


def _from_tree(like: FederationState, tree: dict) -> FederationState:
    """The state that is such a tree."""
    tree["server"].setdefault("warmed", None)
    for name in _OPTIONAL:
        tree.setdefault(name, None)
    return serialization.from_state_dict(like, tree)


def _in_slices(tree: dict) -> ocp.args.PyTreeSave:
    """Arrays are written in small chunks, so that saving needs next to no memory of its own."""
    return ocp.args.PyTreeSave(
        tree,
        save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), tree),
        ocdbt_target_data_file_size=_FILE,
    )


def _as(like: dict, whole: bool) -> ocp.args.PyTreeRestore:
    """The arrays in the shapes and shardings of `like`; it has all that were saved if `whole`.

    Another number of devices has another number of unused rows at the end, hence not `strict`.
    """
    wanted = ocp.checkpoint_utils.construct_restore_args(like, strict=False)
    return ocp.args.PyTreeRestore(like, restore_args=wanted, partial_restore=not whole)


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _is_whole(step: Path) -> bool:
    """Whether every file is as it was written."""
    try:
        known = read_json(step / _CHECKSUMS)
        # Sizes first: a file that was put there may be of any.
        sizes = {name: path.stat().st_size for name, path in _files(step).items()}
        if sizes != {name: value[0] for name, value in known.items()}:
            return False
        return _checksums(step) == known
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError):
        return False


def _checksums(step: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file below `step` but the checksums themselves."""
    return {name: checksum(path) for name, path in _files(step).items()}


def _files(step: Path) -> dict[str, Path]:
    return {
        str(path.relative_to(step)): path
        for path in sorted(step.rglob("*"))
        if path.is_file() and path.name != _CHECKSUMS
    }


def _progress(content: Any) -> Progress:
    """The progress that a checkpoint holds.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(content, dict) or not set(content) <= {f.name for f in fields(Progress)}:
        raise ValueError("its progress has other entries")
    for name, value in content.items():
        kind = type(getattr(_NOTHING_DONE, name))
        parts = value if isinstance(value, list) else []
        kinds = (dict,) if name == "lines" else (int, float)
        numbers = (x for x in (value, *parts) if isinstance(x, float))
        if (
            type(value) is not kind
            or any(type(part) not in kinds for part in parts)
            or not all(map(math.isfinite, numbers))
        ):
            raise ValueError(f"its progress has a wrong {name}")
    progress = Progress(**content)
    rounds = {line.get("round") for line in progress.lines}
    if len(rounds) != len(progress.lines) or progress.best_round not in {0, *rounds}:
        raise ValueError("its progress has wrong lines")
    return progress


_NOTHING_DONE = Progress()


def _discard(path: Path) -> None:
    """Remove a folder, a file or a link; never what a link points at."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _unwritable(error: BaseException | None) -> str | None:
    """Why the file system takes no more, None if something else went wrong."""
    while error is not None:
        # TensorStore, which writes arrays, tells the system's number in its words only.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(code[1]) if code else getattr(error, "errno", None)
        if number in _UNWRITABLE:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _forget(error: BaseException | None) -> None:
    """Let go of everything that the frames of an error and of its causes hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _others_silent() -> Iterator[None]:
    """Keep other threads from telling of a failure that is raised here as well.

    Orbax logs in each of its threads, and leaves tasks that nobody waits for.
    """

    def nothing(*_: Any) -> bool:
        return False

    main = sys.excepthook

    def of_main(*what: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            main(*what)

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook)
    sys.excepthook, sys.unraisablehook, threading.excepthook = of_main, nothing, nothing
    for logger in loggers:
        logger.addFilter(nothing)
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        for logger in loggers:
            logger.removeFilter(nothing)


def _let_others_end() -> None:
    """Wait for what Orbax has left under way, and let go of it."""
    end = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            # Their own `join` raises what they have raised.
            threading.Thread.join(thread, max(0.0, end - time.monotonic()))
    time.sleep(_WRITES)
    gc.collect()
