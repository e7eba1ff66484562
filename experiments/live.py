"""A sweep on a terminal: a table that moves while runs go on."""

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments import interrupts
from experiments.reporting import Nothing, Quiet
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.foreign import printable
from fedvlr_jax.runs.ledger import FAILED, Row
from fedvlr_jax.runs.scheduler import Plan

_MOST_ENDED = 8  # runs that have ended, and are still shown
_PER_SECOND = 4  # pictures


class Board(Nothing):
    """What is known of all runs, as a table; `with board:` shows it.

    Args:
        runs: of the sweep, by name.
        console: where to; a terminal.
    """

    def __init__(self, runs: Mapping[str, Config], console: Console) -> None:
        self._runs = runs
        self._work = {name: _work(config) for name, config in runs.items()}
        self._training: dict[str, _Training] = {}
        self._ended: dict[str, Row] = {}
        self._done_before: set[str] | None = None  # before this process did anything
        self._begun = time.monotonic()
        self.console = console
        self._live = Live(
            get_renderable=self.__rich__, console=console, refresh_per_second=_PER_SECOND
        )

    def __enter__(self) -> "Board":
        self._live.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._training.clear()
        self._live.__exit__(*reason)

    def reporter(self, run: str, plan: Plan) -> "_Training":  # noqa: ARG002
        """A run begins."""
        self._training[run] = _Training(self, run, self._runs[run].schedule.rounds)
        return self._training[run]

    def move(self, ahead: "_Training") -> None:
        """A run is as far as it is, and those that train with it are, too."""
        for training in self._training.values():
            training.first = training.first if training.done else ahead.first
            training.done = min(ahead.done, training.total)
            training.begun = ahead.begun

    def ended(self, run: str, row: Row) -> None:
        """A run has ended."""
        self._training.pop(run, None)
        self._ended[run] = row

    def known(self, rows: Mapping[str, Row]) -> None:
        """All runs that have ended, in whatever process."""
        if self._done_before is None:
            self._done_before = set(rows) - set(self._ended)
        self._ended |= {run: row for run, row in rows.items() if run not in self._ended}
        self._training = {run: one for run, one in self._training.items() if run not in rows}

    def note(self, sentence: str) -> None:
        """A sentence above the table."""
        self.console.print(Text(printable(sentence)))

    def __rich__(self) -> Group:
        """The table as it is now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("run", "", "round", "warm NDCG %", "time left"):
            table.add_column(name, justify="left" if name in ("run", "") else "right")
        shown = [run for run in self._ended if run not in (self._done_before or ())]
        for run in shown[-_MOST_ENDED:]:
            table.add_row(Text(run, overflow="fold"), *_end(self._ended[run]))
        for run, training in self._training.items():
            table.add_row(
                Text(run, overflow="fold", style="bold"),
                ProgressBar(total=training.total, completed=training.done, width=16),
                f"{training.done}/{training.total}",
                _percent(training.score),
                duration(training.seconds_left()),
            )
        return Group(table, Text(self._summary(), style="dim"))

    def _summary(self) -> str:
        failed = sum(row.status == FAILED for row in self._ended.values())
        text = f"{len(self._ended)} of {len(self._work)} runs done"
        if failed:
            text += f", {failed} failed"
        before = sum(self._work[run] for run in self._done_before or ())
        done = sum(self._work[run] for run in self._ended) - before
        done += sum(self._work[run] * one.done / one.total for run, one in self._training.items())
        all_work = sum(self._work.values()) - before
        if 0 < done < all_work:
            elapsed = time.monotonic() - self._begun
            text += f"; about {duration(elapsed / done * (all_work - done))} left"
        if interrupts.asked():
            text += "; stopping after this round"
        return text


class _Training(Quiet):
    """A run that is trained; its reporter."""

    def __init__(self, board: Board, run: str, total: int) -> None:
        self._board, self._run = board, run
        self.total, self.first, self.done = total, 0, 0
        self.begun = time.monotonic()
        self.score: float | None = None

    def note(self, sentence: str) -> None:
        """Above the table."""
        self._board.note(f"{self._run}: {sentence}")

    def begin(self, done: int, total: int, unit: str) -> None:
        """Rounds begin."""
        super().begin(done, total, unit)
        self.first = self.done = done
        self.begun = time.monotonic()

    def advance(self, number: int) -> None:
        """A round is done."""
        self.done = number
        self._board.move(self)

    def evaluated(self, line: dict) -> None:
        """Show the score."""
        valid = metrics.of_line(line)
        self.score = valid[metrics.selection(valid)]

    def seconds_left(self) -> float | None:
        """At the pace so far, None before the first round."""
        rounds = self.done - self.first
        if not rounds:
            return None
        return (time.monotonic() - self.begun) / rounds * (self.total - self.done)


def _work(config: Config) -> float:
    """How much there is to do, in client updates."""
    return float(config.schedule.rounds * (config.method.cohort or config.data.clients or 1))


def _end(row: Row) -> tuple[str, str, str, str]:
    if row.status == FAILED:
        return "failed", "", "", ""
    valid = row.content["valid"]
    score = valid[metrics.selection(valid)]
    return "done", str(row.content["rounds_done"]), _percent(score), ""


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, as much of them as there is."""
    if seconds is None:
        return "--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
