"""When a run's states get on disk: a checkpoint costs more than a round of a small population."""

import dataclasses
import time
from collections.abc import Sequence

from fedvlr_jax.processes import together
from fedvlr_jax.simulation.checkpoint import Checkpoints, Done, Progress
from fedvlr_jax.simulation.federated_round import FederationState
from fedvlr_jax.simulation.trainer import Run


class Saver:
    """Saves one run; between two checkpoints the best state so far is kept in memory.

    Args:
        run: in training.
        checkpoints: of the run.
        seconds: of work that a kill may cost, if states are small.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints, seconds: float) -> None:
        self._run, self._checkpoints, self._seconds = run, checkpoints, seconds
        self._saved = time.monotonic()
        self._kept: tuple[FederationState, Progress] | None = None  # the best, if it is not on disk
        self._is_behind = False  # whether there is something newer than on disk

    def evaluated(self, progress: Progress, last: bool) -> None:
        """After an evaluation: on disk at once if it is the `last`, or if the time has come."""
        recent = time.monotonic() - self._saved < self._seconds
        # Several processes write checkpoints together, and their clocks differ.
        if last or not recent or not self._run.fits_twice or together.count() > 1:
            self._save(progress)
            return
        self._is_behind = True
        if progress.best_round == progress.round:
            self._kept = (self._run.copy(), progress)

    def pause(self, progress: Progress, rounds: Sequence[Done], total: float) -> None:
        """Between evaluations, before the run is left, unless it has diverged since the last one.

        Args:
            progress: at the last evaluation.
            rounds: that were done since.
            total: seconds of the whole run so far.
        """
        if self._run.diverged >= 0:
            self.rescue()
        elif rounds or self._is_behind:
            self._save(dataclasses.replace(progress.after(rounds), total_seconds=total))

    def rescue(self) -> None:
        """Write the best state where the present one is of no use."""
        if self._kept is not None:
            self._checkpoints.save(*self._kept)
            self._kept = None

    def _save(self, progress: Progress) -> None:
        if self._kept is not None and self._kept[1].round == progress.best_round < progress.round:
            self.rescue()
        self._kept = None
        self._run.save(self._checkpoints, progress)
        self._saved, self._is_behind = time.monotonic(), False
