"""What programs print of long work: a bar on a terminal, plain lines elsewhere."""

import platform
import shlex
import sys
import time
from collections.abc import Iterable

import jax
from tqdm import tqdm

from experiments import interrupts
from fedvlr_jax.analysis import metrics
from fedvlr_jax.foreign import printable
from fedvlr_jax.reporter import Reporter, Silent
from fedvlr_jax.runs.ledger import FAILED, Row
from fedvlr_jax.runs.scheduler import Listener, Plan
from fedvlr_jax.version import __version__

_SECONDS_BETWEEN = 20.0  # of lines where there is no terminal


class Nothing(Listener):
    """Says nothing of many runs; those that say something of them are made of it."""

    def reporter(self, run: str, plan: Plan) -> Reporter:  # noqa: ARG002
        """One that only stops after Ctrl-C."""
        return Quiet()


class Sentences(Nothing):
    """Prints what a person should know."""

    def note(self, sentence: str) -> None:
        """Print it."""
        print(printable(sentence), flush=True)


class Lines(Sentences):
    """Prints lines of runs that are known from the start, each with its run's name before it."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._names = list(runs)

    def reporter(self, run: str, plan: Plan) -> Reporter:  # noqa: ARG002
        """Say which of all it is."""
        self.note(f"[{self._names.index(run) + 1}/{len(self._names)}] {run}")
        return Progress(run)

    def ended(self, run: str, row: Row) -> None:
        """Say so if it has failed."""
        if row.status == FAILED:
            self.note(f"failed: {run}: {row.content['reason']}")


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

    def note(self, sentence: str) -> None:
        """Print a sentence."""
        self._print(sentence)

    def begin(self, done: int, total: int, unit: str) -> None:
        """Open the bar, on a terminal."""
        super().begin(done, total, unit)
        self._first, self._total, self._unit = done, total, unit
        self._begun = self._said = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, unit=unit, desc=self._label, dynamic_ncols=True
            )

    def advance(self, number: int) -> None:
        """Move the bar to `number`."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(number - self._bar.n)
        # Rounds tell of themselves by their evaluations.
        elif self._unit != "round" and now - self._said > _SECONDS_BETWEEN:
            self._said = now
            rate = (number - self._first) / (now - self._begun)
            self._print(f"{self._unit} {number:,} of {self._total:,}, {rate:,.1f} a second")

    def evaluated(self, line: dict) -> None:
        """Print loss and validation metrics of one evaluation."""
        k = metrics.selection_cutoff(metrics.cutoffs_of(line))
        hits, gains, warm_hits, warm_gains = (
            _percent(line[f"valid/{group}{name}@{k}"])
            for group in ("", "warm/")
            for name in ("hr", "ndcg")
        )
        self._print(
            f"round {line['round']:>4}  {_loss(line)}  valid HR@{k} {hits}  NDCG@{k} {gains}  "
            f"warm HR@{k} {warm_hits}  NDCG@{k} {warm_gains}  {line['seconds']:.1f} s"
        )

    def end(self) -> None:
        """Close the bar."""
        super().end()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, text: str) -> None:
        line = printable(self._label + text)
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)


def facts(program: str, **more: str) -> dict[str, str]:
    """What a reader of a page needs to make it again; `more` has _ for spaces in names."""
    return {
        "command": shlex.join(["python", "-m", f"experiments.{program}", *sys.argv[1:]]),
        **{name.replace("_", " "): value for name, value in more.items()},
        "made with": f"fedvlr_jax {__version__}, jax {jax.__version__}, "
        f"Python {platform.python_version()}, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
    }


def _loss(line: dict) -> str:
    """The loss, or why there is none."""
    if line["train_loss"] is not None:
        return f"loss {line['train_loss']:.4f}"
    if line["uploads_counted"]:
        return "warm round"  # nothing is trained in it
    return "no upload arrived" if line["clients_trained"] else "no client trained"


def _percent(value: float | None) -> str:
    return "   --" if value is None else f"{value:5.2f}"
