"""The course of one run: resume, evaluate, save, stop early, refuse what has diverged."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fedvlr_jax import files
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, PrunedError, UserError
from fedvlr_jax.processes import together
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.simulation.checkpoint import Checkpoints, DamagedError, Done, Progress
from fedvlr_jax.simulation.evaluate import NOT_FINITE
from fedvlr_jax.simulation.simulation import Simulation
from fedvlr_jax.simulation.trainer import Run

# Takes the lines of metrics.jsonl after an evaluation; says why to end the run there, or nothing.
Prune = Callable[[list[dict[str, Any]]], str | None]


@dataclass(frozen=True)
class Course:
    """How one run goes on from one evaluation to the next, in its folder.

    Attributes:
        config: of the run.
        dataset: its data.
        simulation: of it, and of the runs that train together with it.
        out: its folder.
        reporter: told about it.
        start: when work on it began, of `time.perf_counter`.
        data_seconds: that reading the data took.
        prune: says why the run is not worth going on with, if it is not.
    """

    config: Config
    dataset: Dataset
    simulation: Simulation
    out: Path
    reporter: Reporter
    start: float
    data_seconds: float
    prune: Prune | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.out / "checkpoints")

    def goes_on(self, progress: Progress) -> bool:
        """Whether there is a round left to train."""
        return progress.round < self.config.schedule.rounds and not progress.stopped

    def pruned(self, progress: Progress) -> PrunedError | None:
        """Why the run ends here, though there are rounds left to train; None if it does not."""
        if self.prune is None or not progress.lines or not self.goes_on(progress):
            return None
        reason = self.prune(progress.lines)
        return PrunedError(reason) if reason else None

    def until_evaluation(self, progress: Progress, done: int) -> int:
        """Rounds until the next evaluation, `done` ones after the last."""
        every, rounds = self.config.schedule.eval_every, self.config.schedule.rounds
        return min(every - progress.round % every, rounds - progress.round) - done

    def resume(self, run: Run) -> Progress:
        """At the last complete checkpoint, or at the initial state."""
        checkpoints = self.checkpoints
        if together.is_first():
            checkpoints.clean()
        progress = Progress()
        if checkpoints.rounds():
            progress, complaints = run.resume(checkpoints)
            for complaint in complaints:
                self.reporter.note(complaint)
            if together.is_first():
                checkpoints.point_at_best(progress)
            self.reporter.note(f"{self.out}: going on after round {progress.round}")
        self.write(files.write_lines, "metrics.jsonl", progress.lines)
        return progress

    def tell(self, progress: Progress) -> None:
        """Write down the last evaluation, and tell of it."""
        self.write(files.append_line, "metrics.jsonl", progress.lines[-1])
        self.reporter.evaluated(progress.lines[-1])

    def go_to_best(self, run: Run, progress: Progress) -> None:
        """To the state of the best round."""
        if progress.stopped:
            self.reporter.note(
                f"stopped at round {progress.round}: no better validation score in "
                f"{progress.since_best} evaluations"
            )
        # Other runs may have gone on for longer, and this one's state with them.
        if progress.best_round != progress.round or self.simulation.federation.runs > 1:
            try:
                run.go_back(self.checkpoints, progress.best_round)
            except DamagedError as damage:
                raise UserError(
                    f"{damage}; the best round cannot be ranked: remove {self.out} to start anew"
                ) from None

    def thin(self, progress: Progress) -> None:
        """After the results are written: keep the checkpoints that are wanted."""
        if together.is_first():
            self.checkpoints.thin(self.config.execution.keep_checkpoints, progress.best_round)

    def write(self, write: Callable[..., None], name: str, *content: Any, **arrays: Any) -> None:
        """Write a file of the run's folder, in one process."""
        if together.is_first():
            write(self.out / name, *content, **arrays)

    def divergence(self, number: int) -> DivergedError:
        """What to say of a run whose round `number` was not finite."""
        rounds = self.checkpoints.rounds()
        kept = f"round {rounds[-1]}" if rounds else "none, it was too early"
        return DivergedError(
            f"round {number}: the loss, a parameter or a score is not finite, expected smaller "
            f"learning rates (--server_lr, --client_lr, --router_lr); last good checkpoint: {kept}"
        )

    def ranks(self, run: Run, split: str, number: int) -> Int[np.ndarray, " clients"]:
        """The run's ranks (`Run.ranks`) after round `number`.

        Raises:
            DivergedError: a score is not finite.
        """
        ranks = run.ranks(split)
        if (ranks == NOT_FINITE).any():
            raise self.divergence(number)
        return ranks

    def evaluated(self, run: Run, progress: Progress, rounds: Sequence[Done]) -> Progress:
        """Progress after rounds and an evaluation of the validation split.

        Raises:
            DivergedError: a score is not finite.
        """
        begun = time.perf_counter()
        progress = progress.after(rounds)
        number, uploads = progress.round, progress.uploads
        ranks = self.ranks(run, "valid", number)
        found = metrics.from_ranks(ranks, self.dataset.interactions.warm("valid"))
        eval_seconds = time.perf_counter() - begun
        score = metrics.selection_score(found)
        better = score > progress.best_score
        since_best = 0 if better else progress.since_best + 1
        patience = self.config.schedule.patience
        line = {
            "round": number,
            "train_loss": rounds[-1].loss if uploads else None,
            "clients_trained": progress.trained[-1],
            "uploads_counted": uploads,
            "seconds": round(sum(progress.round_seconds), 6),
            **{f"valid/{name}": value for name, value in found.items()},
        }
        return dataclasses.replace(
            progress,
            best_round=number if better else progress.best_round,
            best_score=score if better else progress.best_score,
            since_best=since_best,
            stopped=bool(patience) and since_best >= patience,
            lines=[*progress.lines, line],
            eval_seconds=[*progress.eval_seconds, eval_seconds],
        )
