"""A reporter that hears every evaluation, and ends a run that is not worth going on with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax import record
from fedvlr_jax.analysis import metrics
from fedvlr_jax.reporter import Reporter

_VALID = "valid/"


class PrunedError(Exception):
    """Raised where a run is not worth going on with; its message says why."""


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run so far: validation score in percent, and its round."""

    score: float
    round: int


def best_of(lines: list[dict[str, Any]]) -> Best | None:
    """The best of a run's evaluations, the first one of equals; None where there is none."""
    best = None
    for line in lines:
        found = {k.removeprefix(_VALID): v for k, v in line.items() if k.startswith(_VALID)}
        score = metrics.selection_score(found)
        if best is None or score > best.score:
            best = Best(score, line["round"])
    return best


class Watched:
    """Tells another reporter everything, and asks after every evaluation whether to go on.

    What is reported is the best score so far, as a trial's value is that of its best round. A run
    that has reached its last round is not pruned: nothing would be saved.

    Args:
        inner: told everything.
        folder: of the run.
        report: takes a round and the best score up to it; says why to end here, or None.
    """

    def __init__(
        self, inner: Reporter, folder: Path, report: Callable[[int, float], str | None]
    ) -> None:
        self._inner, self._folder, self._report = inner, folder, report
        self._lines: list[dict[str, Any]] = []
        self._total = 0

    def note(self, sentence: str) -> None:
        """Pass it on."""
        self._inner.note(sentence)

    def begin(self, done: int, total: int, unit: str) -> None:
        """Pass it on; then hear what was evaluated before, of which a kill may have kept us.

        Raises:
            PrunedError: that is enough.
        """
        self._inner.begin(done, total, unit)
        if unit == "round":
            self._total = total
            self._lines = []
            for line in record.evaluations(self._folder):
                self._hear(line)

    def advance(self, number: int) -> None:
        """Pass it on."""
        self._inner.advance(number)

    def evaluated(self, line: dict) -> None:
        """Pass it on; then ask.

        Raises:
            PrunedError: the run is not worth going on with.
        """
        self._inner.evaluated(line)
        self._hear(line)

    def end(self) -> None:
        """Pass it on."""
        self._inner.end()

    def wants_stop(self) -> bool:
        """What the other one wants."""
        return self._inner.wants_stop()

    def _hear(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        reason = self._report(line["round"], best_of(self._lines).score)
        if reason is not None and line["round"] < self._total:
            self._inner.end()
            raise PrunedError(reason)
