"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import dataclasses
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import jax
from tqdm import tqdm

from experiments import interrupts
from fedvlr_jax.foreign import printable
from fedvlr_jax.reporter import Reporter, Silent
from fedvlr_jax.runs.ledger import FAILED, Row
from fedvlr_jax.version import __version__

_SECONDS_BETWEEN = 20.0  # of lines where there is no terminal


@dataclass(frozen=True)
class _Line:
    """Where a long count began, and when it was told about last."""

    first: int
    total: int
    unit: str
    begun: float
    said: float

    def text(self, number: int) -> str:
        """What to print at `number`."""
        rate = (number - self.first) / (time.monotonic() - self.begun)
        return f"{self.unit} {number:,} of {self.total:,}, {rate:,.1f} a second"


class Display(Protocol):
    """Shows how the runs of a sweep go on."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def reporter(self, run: str, rounds: int) -> Reporter:
        """Who is told about a run of so many rounds that begins."""

    def ended(self, run: str, row: Row) -> None:
        """A run has ended, in this process."""

    def known(self, rows: Mapping[str, Row]) -> None:
        """All that have ended, in whatever process."""


class Nothing:
    """A display that shows nothing."""

    def note(self, sentence: str) -> None:
        """Ignore."""

    def reporter(self, run: str, rounds: int) -> Reporter:  # noqa: ARG002
        """One that only stops after Ctrl-C."""
        return Quiet()

    def ended(self, run: str, row: Row) -> None:
        """Ignore."""

    def known(self, rows: Mapping[str, Row]) -> None:
        """Ignore."""


class Lines(Nothing):
    """A display of plain lines, each with its run's name before it."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._names = list(runs)

    def note(self, sentence: str) -> None:
        """Print it."""
        print(sentence, flush=True)

    def reporter(self, run: str, rounds: int) -> Reporter:  # noqa: ARG002
        """Say which of all it is."""
        print(f"[{self._names.index(run) + 1}/{len(self._names)}] {run}", flush=True)
        return Progress(run)

    def ended(self, run: str, row: Row) -> None:
        """Say so if it has failed."""
        if row.status == FAILED:
            print(f"failed: {run}: {row.content['reason']}", flush=True)


class Quiet(Silent):
    """Says nothing, and stops after Ctrl-C, at the end of the round where one is in progress."""

    def begin(self, done: int, total: int, unit: str) -> None:  # noqa: ARG002
        """Rounds are finished before the program stops."""
        interrupts.defer(unit == "round")

    def end(self) -> None:
        """There is no round to finish."""
        interrupts.defer(False)

    def wants_stop(self) -> bool:
        """After Ctrl-C."""
        return interrupts.asked()


class Progress(Quiet):
    """A `fedvlr_jax` reporter that prints; `label` stands before every line."""

    def __init__(self, label: str = "") -> None:
        self._label = label and f"{label}: "
        self._bar: tqdm | None = None
        self._line: _Line | None = None

    def note(self, sentence: str) -> None:
        """Print a sentence."""
        self._print(sentence)

    def begin(self, done: int, total: int, unit: str) -> None:
        """Open the bar, on a terminal."""
        super().begin(done, total, unit)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, unit=unit, desc=self._label, dynamic_ncols=True
            )
        elif unit != "round":  # rounds tell of themselves by their evaluations
            self._line = _Line(done, total, unit, time.monotonic(), time.monotonic())

    def advance(self, number: int) -> None:
        """Move the bar to `number`."""
        if self._bar is not None:
            self._bar.update(number - self._bar.n)
        elif self._line is not None and time.monotonic() - self._line.said > _SECONDS_BETWEEN:
            self._line = dataclasses.replace(self._line, said=time.monotonic())
            self._print(self._line.text(number))

    def evaluated(self, line: dict) -> None:
        """Print loss and validation metrics of one evaluation."""
        self._print(
            f"round {line['round']:>4}  {_loss(line)}  valid "
            f"HR@50 {_percent(line['valid/hr@50'])}  NDCG@50 {_percent(line['valid/ndcg@50'])}  "
            f"warm HR@50 {_percent(line['valid/warm/hr@50'])}  "
            f"NDCG@50 {_percent(line['valid/warm/ndcg@50'])}  {line['seconds']:.1f} s"
        )

    def end(self) -> None:
        """Close the bar."""
        super().end()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._line = None

    def _print(self, text: str) -> None:
        line = printable(self._label + text)
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)


def facts(program: str, **told: str) -> dict[str, str]:
    """What a reader of a page needs to make it again; `told` has _ for spaces in names."""
    return {
        "command": shlex.join(["python", "-m", f"experiments.{program}", *sys.argv[1:]]),
        **{name.replace("_", " "): value for name, value in told.items()},
        "made with": _versions(),
    }


def _versions() -> str:
    """What made the numbers: this package, jax, Python, and the devices."""
    return (
        f"fedvlr_jax {__version__}, jax {jax.__version__}, Python {platform.python_version()}, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})"
    )


def _loss(line: dict) -> str:
    """The loss, or why there is none."""
    if line["train_loss"] is not None:
        return f"loss {line['train_loss']:.4f}"
    return "no upload arrived" if line["clients_trained"] else "no client trained"


def _percent(value: float | None) -> str:
    return "   --" if value is None else f"{value:5.2f}"
