"""Checkpoints of a run, written by Orbax: complete or not there, checked when read.

`checkpoints/000025` holds everything after round 25; `checkpoints/best` is a symbolic link to the
round that validation likes best. The last two are kept, and the best round of each. A folder is
renamed into place when it is finished, so a kill leaves whole checkpoints only; a checksum of every
file catches what happens to one afterwards. Where several processes train together, each writes and
reads the private states of its own clients; the folder has to be one that all of them see.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from jaxtyping import Int

from fedvlr_jax.errors import UserError
from fedvlr_jax.files import UNFINISHED, checksum, write_json
from fedvlr_jax.processes import together
from fedvlr_jax.simulation.round import FederationState

_KEPT = 2
_CHUNK = 4 << 20  # bytes of an array that are written at a time
_FILE = 32 << 20  # bytes of one file, about
_CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Done:
    """What is remembered of a round of one run.

    Attributes:
        seconds: wall seconds that it took.
        loss: see `round.Outcome`.
        by_length: how many clients with 0, 1, ... train items trained.
        late: how many of them upload a round late.
        together: how many clients trained in all runs of the program.
    """

    seconds: float
    loss: float
    by_length: Int[np.ndarray, " lengths"]
    late: int
    together: int


@dataclass(frozen=True)
class Progress:
    """What a run remembers beside its arrays.

    Attributes:
        round: rounds done.
        best_round: the evaluated round with the best validation score so far, 0 before the first.
        best_score: its score.
        since_best: evaluations since then.
        stopped: whether patience has run out.
        lines: the lines of metrics.jsonl up to here.
        round_seconds: wall seconds of every round so far.
        trained: clients that trained in every round so far, those that dropped out left out.
        late: how many of them uploaded a round late.
        together: as `trained`, over all runs that the program trained.
        by_length: over all rounds, how many clients that trained had 0, 1, ... train items.
        eval_seconds: wall seconds of every evaluation so far.
        compile_seconds: spent compiling, over all processes that worked on the run.
        total_seconds: spent on the run, over all processes.
    """

    round: int = 0
    best_round: int = 0
    best_score: float = -1.0
    since_best: int = 0
    stopped: bool = False
    lines: list[dict] = field(default_factory=list)
    round_seconds: list[float] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    together: list[int] = field(default_factory=list)
    by_length: list[int] = field(default_factory=list)
    eval_seconds: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    total_seconds: float = 0.0

    def after(self, rounds: Sequence[Done]) -> "Progress":
        """Progress after more rounds, not evaluated yet."""
        by_length = self.by_length
        for done in rounds:
            pairs = itertools.zip_longest(by_length, done.by_length.tolist(), fillvalue=0)
            by_length = [a + b for a, b in pairs]
        return dataclasses.replace(
            self,
            round=self.round + len(rounds),
            round_seconds=self.round_seconds + [done.seconds for done in rounds],
            trained=self.trained + [int(done.by_length.sum()) for done in rounds],
            late=self.late + [done.late for done in rounds],
            together=self.together + [done.together for done in rounds],
            by_length=by_length,
        )

    @property
    def uploads(self) -> int:
        """Uploads that the server had in the last round: none from who came late, or stayed away.

        Those that were late in the round before are among them.
        """
        before = self.late[-2] if len(self.late) > 1 else 0
        return self.trained[-1] - self.late[-1] + before


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
        """
        if together.is_first():
            self.folder.mkdir(exist_ok=True)
        together.wait("checkpoint begun")
        unfinished = self.folder / f"{UNFINISHED}{progress.round:06d}"
        content = ocp.args.Composite(
            state=_in_slices(serialization.to_state_dict(state)),
            progress=ocp.args.JsonSave(asdict(progress)),
        )
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

    def _finish(self, unfinished: Path, progress: Progress) -> None:
        """Give a whole checkpoint its name, and remove those that are not needed any more."""
        # An older checkpoint that is gone back to needs the best round of its own time.
        kept = {progress.best_round, self._best()}
        unfinished.rename(self.step(progress.round))
        self.point_at_best(progress)
        for number in self.rounds()[:-_KEPT]:
            if number not in kept:
                self._remove(number)

    def point_at_best(self, progress: Progress) -> None:
        """Make `checkpoints/best` a link to the best round's folder, in one step."""
        target = self.step(progress.best_round)
        if progress.best_round and target.is_dir():
            temporary = self.folder / f"{UNFINISHED}best"
            temporary.symlink_to(target.name)
            os.replace(temporary, self._link)

    def thin(self, kept: str) -> None:
        """Remove what is not wanted of a finished run: `kept` is one of `KEPT_CHECKPOINTS`."""
        there = set(self.rounds())
        wanted = {"all": there, "best": {self._best()}, "none": set()}[kept]
        if self._best() not in wanted:
            self._link.unlink(missing_ok=True)
        for number in there - wanted:
            self._remove(number)

    def rounds(self) -> list[int]:
        """The rounds that have a finished folder, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def clean(self) -> None:
        """Remove what a killed save left behind."""
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            leftover.unlink() if leftover.is_symlink() else shutil.rmtree(leftover)

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
        """
        step = self.step(number)
        try:
            if not together.first_says(lambda: _is_whole(step)):
                raise DamagedError(f"{step}: the checkpoint is damaged (checksums differ)")
            content = ocp.args.Composite(
                state=_as(serialization.to_state_dict(like), whole=like.private is not None),
                progress=ocp.args.JsonRestore(),
            )
            with _checkpointer() as checkpointer:
                found = checkpointer.restore(step, content)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedError(f"{step}: the checkpoint is damaged ({reason})") from error
        state = serialization.from_state_dict(like, found["state"])
        return state, Progress(**found["progress"])

    def step(self, number: int) -> Path:
        """The folder of one round's checkpoint."""
        return self.folder / f"{number:06d}"

    @property
    def _link(self) -> Path:
        return self.folder / "best"

    def _best(self) -> int:
        """The round that `best` points at, 0 without one."""
        return int(self._link.readlink().name) if self._link.is_symlink() else 0

    def _remove(self, number: int) -> None:
        """Remove a checkpoint; what a kill leaves of it does not look like one."""
        shutil.rmtree(self.step(number).rename(self.folder / f"{UNFINISHED}{number:06d}"))


class DamagedError(Exception):
    """A checkpoint that cannot be trusted."""


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
        return _checksums(step) == json.loads((step / _CHECKSUMS).read_text())
    except (OSError, ValueError):
        return False


def _checksums(step: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file below `step` but the checksums themselves."""
    return {
        str(path.relative_to(step)): checksum(path)
        for path in sorted(step.rglob("*"))
        if path.is_file() and path.name != _CHECKSUMS
    }
