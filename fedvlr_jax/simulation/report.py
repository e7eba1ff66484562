"""How a run tells what it is doing. The library is silent unless it is given a `Reporter`."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Receives what a run has to say; implemented for terminals and logs in `experiments`."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def begin(self, done: int, rounds: int) -> None:
        """Training starts, with `done` of `rounds` rounds behind it."""

    def advance(self, number: int) -> None:
        """Round `number` is done."""

    def evaluated(self, line: dict) -> None:
        """An evaluation, as the line of metrics.jsonl."""

    def end(self) -> None:
        """Training is over."""


class Silent:
    """Says nothing."""

    def note(self, sentence: str) -> None:
        """Ignore."""

    def begin(self, done: int, rounds: int) -> None:
        """Ignore."""

    def advance(self, number: int) -> None:
        """Ignore."""

    def evaluated(self, line: dict) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""
