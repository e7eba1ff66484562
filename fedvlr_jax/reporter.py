"""How long work tells what it is doing. The library is silent unless given a `Reporter`."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Receives what there is to say; implemented for terminals and logs in `experiments`."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def begin(self, done: int, total: int, unit: str) -> None:
        """Work on `total` rounds, images or texts (`unit`) starts, `done` of them behind it."""

    def advance(self, number: int) -> None:
        """The first `number` of them are done."""

    def evaluated(self, line: dict) -> None:
        """An evaluation, as the line of metrics.jsonl."""

    def end(self) -> None:
        """The work is over."""

    def wants_stop(self) -> bool:
        """Whether training is to stop after the round that was told last, and be saved."""
        return False


class Silent(Reporter):
    """Says nothing, and never wants to stop."""


class Muted(Silent):
    """Says nothing, and wants what another reporter does.

    Args:
        reporter: asked whether to stop, told nothing.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.wants_stop = reporter.wants_stop
