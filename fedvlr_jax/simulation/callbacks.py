"""What hears how a run goes on: saving, stopping early, metrics.jsonl, progress, and users' own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedvlr_jax import files, record, targets
from fedvlr_jax.processes import together
from fedvlr_jax.simulation.checkpoint import Progress
from fedvlr_jax.simulation.federated_round import FederationState

if TYPE_CHECKING:
    from fedvlr_jax.simulation.loop import Running


class Callback:
    """Hears of one run. Everything does nothing unless a subclass says otherwise."""

    def begin(self, run: Running) -> str | None:
        """The run begins, or goes on; why to end it at once, None to go on."""

    def evaluated(self, run: Running) -> str | None:
        """The run was evaluated; why to end it before its last round, None to go on."""

    def diverged(self, run: Running) -> None:
        """A loss, a parameter or a score is not finite; the run ends."""

    def stopped(self, run: Running) -> None:
        """Training stops between two evaluations, to go on later."""


class StopEarly(Callback):
    """Ends a run, as if it had reached its last round.

    That is when patience runs out (`--patience`), or when it is as good as wanted (`--target`).
    """

    def evaluated(self, run: Running) -> None:
        """Count evaluations since the best one, and look at the last one."""
        patience = run.config.schedule.patience
        target = targets.parsed(run.config.schedule.target)
        stopped = bool(patience) and run.progress.since_best >= patience
        stopped |= target is not None and target.is_reached(run.progress.lines[-1])
        run.progress = dataclasses.replace(run.progress, stopped=stopped)


class Save(Callback):
    """Writes checkpoints, which cost more than a round of a small population.

    Between two of them the best state so far is kept in memory.
    """

    def begin(self, run: Running) -> None:  # noqa: ARG002
        """The time is counted from here."""
        self._saved = time.monotonic()
        self._best: tuple[FederationState, Progress] | None = None  # if it is not on disk
        self._is_behind = False  # whether there is something newer than on disk

    def evaluated(self, run: Running) -> None:
        """Write if it is the last time, or the time has come, or states are large."""
        progress, seconds = run.progress, run.config.execution.checkpoint_seconds
        recent = time.monotonic() - self._saved < seconds
        # Several processes write checkpoints together, and their clocks differ.
        if not run.goes_on or not recent or not run.states.fits_twice or together.count() > 1:
            self._save(run, progress)
            return
        self._is_behind = True
        if progress.best_round == progress.round:
            self._best = (run.states.copy(), progress)

    def diverged(self, run: Running) -> None:
        """Write the best state, as the present one is of no use."""
        if self._best is not None:
            run.checkpoints.save(*self._best)
            self._best = None

    def stopped(self, run: Running) -> None:
        """Write what was done since, unless the run has diverged since the last evaluation."""
        if run.states.diverged >= 0:
            self.diverged(run)
        elif run.since or self._is_behind:
            progress = run.progress.after(run.since)
            self._save(run, dataclasses.replace(progress, total_seconds=run.seconds))

    def _save(self, run: Running, progress: Progress) -> None:
        if self._best is not None and self._best[1].round == progress.best_round < progress.round:
            self.diverged(run)
        self._best = None
        run.states.save(run.checkpoints, progress)
        self._saved, self._is_behind = time.monotonic(), False


class Lines(Callback):
    """Writes metrics.jsonl."""

    def begin(self, run: Running) -> None:
        """Write the lines of what was done before; a kill may have cut the last one."""
        run.write(files.write_lines, record.EVALUATIONS, run.progress.lines)

    def evaluated(self, run: Running) -> None:
        """Add a line."""
        run.write(files.append_line, record.EVALUATIONS, run.progress.lines[-1])


class Tell(Callback):
    """Tells the run's reporter of evaluations."""

    def evaluated(self, run: Running) -> None:
        """Pass the line on."""
        run.reporter.evaluated(run.progress.lines[-1])


class Prune(Callback):
    """Ends a run that is not worth going on with.

    Args:
        judge: takes the lines of metrics.jsonl so far; says why to end the run there, or nothing.
    """

    def __init__(self, judge: Callable[[list[dict[str, Any]]], str | None]) -> None:
        self.judge = judge

    def begin(self, run: Running) -> str | None:
        """A kill may have come between the last evaluation and its judgement."""
        return self.judge(run.progress.lines) if run.progress.lines else None

    def evaluated(self, run: Running) -> str | None:
        """Ask."""
        return self.judge(run.progress.lines)


OWN = (StopEarly, Save, Lines, Tell)
"""Of every run, in this order."""
