"""What hears how a run goes on: saving, stopping early, metrics.jsonl, progress, and users' own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedvlr_jax import files, record
from fedvlr_jax.simulation.saving import Saver

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
    """Ends a run, as if it had reached its last round, when patience runs out (`--patience`)."""

    def evaluated(self, run: Running) -> None:
        """Count evaluations since the best one."""
        patience = run.config.schedule.patience
        stopped = bool(patience) and run.progress.since_best >= patience
        run.progress = dataclasses.replace(run.progress, stopped=stopped)


class Save(Callback):
    """Writes checkpoints when the time has come (`saving.py`)."""

    def begin(self, run: Running) -> None:
        """The time is counted from here."""
        seconds = run.config.execution.checkpoint_seconds
        self._saver = Saver(run.states, run.checkpoints, seconds)

    def evaluated(self, run: Running) -> None:
        """Write, or keep the best in memory."""
        self._saver.evaluated(run.progress, last=not run.goes_on)

    def diverged(self, run: Running) -> None:  # noqa: ARG002
        """Write the best."""
        self._saver.rescue()

    def stopped(self, run: Running) -> None:
        """Write what was done since."""
        self._saver.pause(run.progress, run.since, run.seconds)


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
