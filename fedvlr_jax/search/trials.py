"""Trials of a search, as tables and pictures see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"


@dataclass(frozen=True)
class Outcome:
    """What has become of a trial.

    Attributes:
        state: `COMPLETE`, `PRUNED`, `FAILED` or `RUNNING`.
        value: validation score in percent (`analysis.metrics.SELECTION`) of the best round, the
            mean over seeds; of a pruned trial the best until then; None of the others.
        best_round: of the first seed, counted from 1; None where no round was evaluated.
        seconds: of the rounds of all seeds, evaluations and compilation left out.
        reason: why it was pruned or has failed.
    """

    state: str
    value: float | None = None
    best_round: int | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """A trial: its number, counted from 0, the values of what is searched, its outcome."""

    number: int
    params: dict[str, Any]
    outcome: Outcome


def ended(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are not running, in order of their numbers."""
    found = [trial for trial in trials if trial.outcome.state != RUNNING]
    return sorted(found, key=lambda trial: trial.number)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are complete, the best first, the earlier of two with one score."""
    found = [trial for trial in trials if trial.outcome.state == COMPLETE]
    return sorted(found, key=lambda trial: (-trial.outcome.value, trial.number))
