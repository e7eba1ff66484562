"""A sweep on a terminal: a table that moves while runs go on."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments import interrupts
from fedvlr_jax.config import Config
from fedvlr_jax.foreign import printable
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.runs.ledger import FAILED, Row

_MOST_ENDED = 8  # runs that have ended, and are still shown
_PER_SECOND = 4  # pictures
_SCORE = "valid/warm/ndcg@50"


@dataclass
class _Going:
    """A run that is trained."""

    total: int
    first: int = 0
    done: int = 0
    begun: float = field(default_factory=time.monotonic)
    score: float | None = None

    def seconds_left(self) -> float | None:
        """At the pace so far, None before the first round."""
        rounds = self.done - self.first
        if not rounds:
            return None
        return (time.monotonic() - self.begun) / rounds * (self.total - self.done)


class Board:
    """What is known of all runs, as a table; `with board:` shows it.

    Args:
        runs: of the sweep, by name.
        console: where to; a terminal.
    """

    def __init__(self, runs: Mapping[str, Config], console: Console) -> None:
        self._work = {name: _work(config) for name, config in runs.items()}
        self._going: dict[str, _Going] = {}
        self._ended: dict[str, Row] = {}
        self._found_done: set[str] | None = None  # before this process did anything
        self._begun = time.monotonic()
        self.console = console
        self._live = Live(
            get_renderable=self.__rich__, console=console, refresh_per_second=_PER_SECOND
        )

    def __enter__(self) -> "Board":
        self._live.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._going.clear()
        self._live.__exit__(*reason)

    def reporter(self, run: str, rounds: int) -> Reporter:
        """A run begins."""
        self._going[run] = _Going(rounds)
        return _OfRun(self, run)

    def counting(self, run: str, first: int) -> None:
        """A run's rounds begin, after `first` that are behind it."""
        self._going[run].first = self._going[run].done = first
        self._going[run].begun = time.monotonic()

    def at(self, run: str, number: int) -> None:
        """A run, and those that train with it, have done round `number`."""
        for going in self._going.values():
            going.first = going.first if going.done else self._going[run].first
            going.done = min(number, going.total)
            going.begun = self._going[run].begun

    def scored(self, run: str, line: Mapping[str, float | None]) -> None:
        """A run was evaluated."""
        self._going[run].score = line[_SCORE]

    def ended(self, run: str, row: Row) -> None:
        """A run has ended."""
        self._going.pop(run, None)
        self._ended[run] = row

    def known(self, rows: Mapping[str, Row]) -> None:
        """All runs that have ended, in whatever process."""
        if self._found_done is None:
            self._found_done = set(rows) - set(self._ended)
        self._ended |= {run: row for run, row in rows.items() if run not in self._ended}
        self._going = {run: g for run, g in self._going.items() if run not in rows}

    def note(self, sentence: str) -> None:
        """A sentence above the table."""
        self.console.print(Text(printable(sentence)))

    def __rich__(self) -> Group:
        """The table as it is now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("run", "", "round", "warm NDCG@50 %", "time left"):
            table.add_column(name, justify="left" if name in ("run", "") else "right")
        shown = [run for run in self._ended if run not in (self._found_done or ())]
        for run in shown[-_MOST_ENDED:]:
            table.add_row(Text(run, overflow="fold"), *_end(self._ended[run]))
        for run, going in self._going.items():
            table.add_row(
                Text(run, overflow="fold", style="bold"),
                ProgressBar(total=going.total, completed=going.done, width=16),
                f"{going.done}/{going.total}",
                _percent(going.score),
                duration(going.seconds_left()),
            )
        return Group(table, Text(self._whole(), style="dim"))

    def _whole(self) -> str:
        failed = sum(row.status == FAILED for row in self._ended.values())
        text = f"{len(self._ended)} of {len(self._work)} runs done"
        if failed:
            text += f", {failed} failed"
        before = sum(self._work[run] for run in self._found_done or ())
        done = sum(self._work[run] for run in self._ended) - before
        done += sum(self._work[r] * g.done / g.total for r, g in self._going.items())
        all_work = sum(self._work.values()) - before
        if 0 < done < all_work:
            elapsed = time.monotonic() - self._begun
            text += f"; about {duration(elapsed / done * (all_work - done))} left"
        if interrupts.asked():
            text += "; stopping after this round"
        return text


class _OfRun:
    """The reporter of one run on a board."""

    def __init__(self, board: Board, run: str) -> None:
        self._board, self._run = board, run

    def note(self, sentence: str) -> None:
        """Above the table."""
        self._board.note(f"{self._run}: {sentence}")

    def begin(self, done: int, total: int, unit: str) -> None:  # noqa: ARG002
        """Rounds begin."""
        interrupts.defer()
        self._board.counting(self._run, done)

    def advance(self, number: int) -> None:
        """A round is done."""
        self._board.at(self._run, number)

    def evaluated(self, line: dict) -> None:
        """Show the score."""
        self._board.scored(self._run, line)

    def end(self) -> None:
        """There is no round to finish; what the run came to is told by the sweep."""
        interrupts.defer(False)

    def wants_stop(self) -> bool:
        """After Ctrl-C."""
        return interrupts.asked()


def _work(config: Config) -> float:
    """How much there is to do, in client updates."""
    return float(config.schedule.rounds * (config.method.cohort or config.data.clients or 1))


def _end(row: Row) -> tuple[str, str, str, str]:
    if row.status == FAILED:
        return "failed", "", "", ""
    done, score = row.content["rounds_done"], row.content["valid"]["warm/ndcg@50"]
    return "done", str(done), _percent(score), ""


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, as much of them as there is."""
    if seconds is None:
        return "--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
