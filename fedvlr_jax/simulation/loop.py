"""The loop of training: rounds and evaluations of runs of one program, to the end of the last."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from fedvlr_jax import record, targets
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, PrunedError, Stopped, UserError
from fedvlr_jax.processes import together
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.simulation.accounting import traffic, warm_protocols_of
from fedvlr_jax.simulation.callbacks import Callback
from fedvlr_jax.simulation.checkpoint import Checkpoints, DamagedError, Done, Progress
from fedvlr_jax.simulation.evaluate import NOT_FINITE
from fedvlr_jax.simulation.federated_round import Outcome
from fedvlr_jax.simulation.simulation import Simulation
from fedvlr_jax.simulation.trainer import Run, Trainer


@dataclass
class Running:
    """A run in the loop.

    Attributes:
        config: of the run.
        dataset: its data.
        simulation: of it, and of the runs that train together with it.
        number: its number among these.
        out: its folder.
        reporter: told about it.
        callbacks: hear of it, in order.
        start: when work on it began, of `time.perf_counter`.
        data_seconds: that reading the data took.
        states: what changes from round to round on the devices.
        progress: what is remembered beside that, up to the last evaluation.
        since: rounds since then.
        error: why it has ended without a result, if it has.
    """

    config: Config
    dataset: Dataset
    simulation: Simulation
    number: int
    out: Path
    reporter: Reporter
    callbacks: Sequence[Callback]
    start: float
    data_seconds: float
    states: Run
    progress: Progress = field(default_factory=Progress)
    since: list[Done] = field(default_factory=list)
    error: DivergedError | PrunedError | None = None

    def __post_init__(self) -> None:
        """At the last complete checkpoint, or at the initial state."""
        checkpoints = self.checkpoints
        if together.is_first():
            checkpoints.clean()
        if checkpoints.rounds():
            self.progress, complaints = self.states.resume(checkpoints)
            for complaint in complaints:
                self.reporter.note(complaint)
            if together.is_first():
                checkpoints.point_at_best(self.progress)
            self.reporter.note(f"{self.out}: going on after round {self.progress.round}")
        self._seconds_before = self.progress.total_seconds

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.out / record.CHECKPOINTS)

    @property
    def goes_on(self) -> bool:
        """Whether there is a round left to train."""
        left = self.progress.round < self.config.schedule.rounds
        return left and not self.progress.stopped and self.error is None

    @property
    def rounds_done(self) -> int:
        """With those since the last evaluation."""
        return self.progress.round + len(self.since)

    @property
    def until_evaluation(self) -> int:
        """Rounds until the next evaluation.

        The first ones are right after the warm rounds of every kind, or at the end of a run that
        ends before: the best round may be the last of them.
        """
        every, rounds = self.config.schedule.eval_every, self.config.schedule.rounds
        number = self.progress.round
        following = number + every - number % every
        following = min((end for end in self._ends if end > number), default=following)
        return min(following, rounds) - self.rounds_done

    @property
    def _ends(self) -> list[int]:
        """After how many rounds the warm rounds of each kind end."""
        phases = self.simulation.federation.phases
        return list(itertools.accumulate(phase.server.warm.rounds for phase in phases))

    @property
    def seconds(self) -> float:
        """Spent on the run so far, over all processes."""
        return self._seconds_before + time.perf_counter() - self.start

    def begin(self) -> None:
        """Let callbacks hear that the run begins."""
        for callback in self.callbacks:
            self._end_if(callback.begin(self))

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Remember a round of all runs of the program, which took so many seconds."""
        by_length, late, cut_off = (of_all[self.number] for of_all in outcome.participation)
        trained = int(outcome.participation.by_length.sum())
        loss = float(outcome.loss[self.number])
        kind = self.simulation.federation.of_round(self.rounds_done).kind
        milliseconds = int(outcome.milliseconds[self.number])
        self.since.append(
            Done(seconds, loss, by_length, int(late), trained, kind, int(cut_off), milliseconds)
        )

    def evaluate(self) -> None:
        """Rank the validation split, and let callbacks hear of it; the run may end by that."""
        try:
            if (bad := self.states.diverged) >= 0:
                raise self.divergence(bad)
            self.progress = self._evaluated()
        except DivergedError as reason:
            for callback in self.callbacks:
                callback.diverged(self)
            self.error = reason
            return
        undone = self.progress.als_undone and self.progress.round == self._ends[-1]
        if undone:
            self.states.undo_passes()
        self.since = []
        for callback in self.callbacks:
            self._end_if(callback.evaluated(self))
        if undone:
            self.reporter.note(
                f"alternating passes did not raise the validation score: after round "
                f"{self.progress.round} the run goes on from its spectral start"
            )

    def _end_if(self, reason: str | None) -> None:
        """End the run for a reason, if there is one and the run has not ended anyway."""
        if reason and self.goes_on:
            self.error = PrunedError(reason)

    def go_to_best(self) -> None:
        """To the state of the best round."""
        progress = self.progress
        if progress.stopped:
            target = targets.parsed(self.config.schedule.target)
            why = f"no better validation score in {progress.since_best} evaluations"
            if target is not None and target.is_reached(progress.lines[-1]):
                why = f"--target={self.config.schedule.target} is reached"
            self.reporter.note(f"stopped at round {progress.round}: {why}")
        # Other runs may have gone on for longer, and this one's state with them.
        if progress.best_round != progress.round or self.simulation.federation.runs > 1:
            try:
                self.states.go_back(self.checkpoints, progress.best_round)
            except DamagedError as damage:
                raise UserError(
                    f"{damage}; the best round cannot be ranked: remove {self.out} to start anew"
                ) from None

    def thin(self) -> None:
        """After the results are written: keep the checkpoints that are wanted."""
        if together.is_first():
            kept = self.config.execution.keep_checkpoints
            self.checkpoints.thin(kept, self.progress.best_round)

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

    def ranks(self, split: str, number: int) -> Int[np.ndarray, " clients"]:
        """The run's ranks (`Run.ranks`) after round `number`.

        Raises:
            DivergedError: a score is not finite.
        """
        ranks = self.states.ranks(split)
        if (ranks == NOT_FINITE).any():
            raise self.divergence(number)
        return ranks

    def _evaluated(self) -> Progress:
        """Progress after the rounds since the last evaluation, and another one.

        Raises:
            DivergedError: a score is not finite.
        """
        begun = time.perf_counter()
        progress = self.progress.after(self.since)
        number, uploads = progress.round, progress.uploads
        ranks = self.ranks("valid", number)
        warm = self.dataset.interactions.warm("valid")
        found = metrics.from_ranks(ranks, warm, self.config.schedule.cutoffs)
        eval_seconds = time.perf_counter() - begun
        score = metrics.selection_score(found)
        better = score > progress.best_score
        federation = self.simulation.federation
        sent = traffic(self.simulation.protocol, progress, warm_protocols_of(federation))
        line = {
            "round": number,
            # In a warm round there is nothing that a loss would be of.
            "train_loss": self.since[-1].loss
            if uploads and number > federation.warm_rounds
            else None,
            "clients_trained": progress.trained[-1],
            "uploads_counted": uploads,
            "client_updates": sum(progress.trained),
            **{f"{way}_bytes": sent[f"{way}_bytes"] for way in ("download", "upload")},
            "seconds": round(sum(progress.round_seconds), 6),
            "simulated_seconds": progress.simulated_seconds if federation.rules else None,
            **{f"valid/{name}": value for name, value in found.items()},
        }
        return dataclasses.replace(
            progress,
            best_round=number if better else progress.best_round,
            best_score=score if better else progress.best_score,
            als_undone=self._ends_in_vain(number, score) or progress.als_undone,
            since_best=0 if better or number <= federation.warm_rounds else progress.since_best + 1,
            lines=[*progress.lines, line],
            eval_seconds=[*progress.eval_seconds, eval_seconds],
            total_seconds=self.seconds,
        )

    def _ends_in_vain(self, number: int, score: float) -> bool:
        """Whether alternating passes end here, with no better score than the spectral start's."""
        if self.since[-1].kind != "als" or number != self._ends[-1]:
            return False
        (start,) = (line for line in self.progress.lines if line["round"] == self._ends[-2])
        return score <= metrics.selection_score(metrics.of_line(start))


def train(trainer: Trainer, runs: Sequence[Running], reporter: Reporter) -> None:
    """Rounds and evaluations until every run has ended.

    Runs that have stopped, diverged or were pruned stay in the program until the last one is done:
    so what a run comes to does not depend on when the others ended.

    Args:
        trainer: trains all runs by a round.
        runs: that are left to train.
        reporter: told about the rounds of all, by the number of the first one's.

    Raises:
        Stopped: the reporter wanted to stop; what was done is saved.
    """
    shown = runs[0]
    reporter.begin(shown.progress.round, shown.config.schedule.rounds, "round")
    for run in runs:
        run.begin()
    while ahead := [run for run in runs if run.goes_on]:
        # Up to the next evaluation nothing moves between host and device unless it is meant.
        with jax.transfer_guard("disallow"):
            for _ in range(min(run.until_evaluation for run in ahead)):
                begun = time.perf_counter()
                outcome = trainer.round()
                seconds = time.perf_counter() - begun
                for run in ahead:
                    run.add(outcome, seconds)
                reporter.advance(shown.rounds_done)
                if together.any_says(reporter.wants_stop):
                    break
        for run in ahead:
            if not run.until_evaluation:
                run.evaluate()
        if together.any_says(reporter.wants_stop):
            _stop(ahead)
            raise Stopped(f"stopped after round {shown.rounds_done}")


def _stop(runs: Sequence[Running]) -> None:
    for run in runs:
        for callback in run.callbacks if run.goes_on else ():
            callback.stopped(run)
