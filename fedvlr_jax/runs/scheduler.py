"""Doing what a planner wants: every run once, together where they can be, whatever happens."""

import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from fedvlr_jax.config import Config, having
from fedvlr_jax.data import DatasetCache
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import PrunedError, UnwritableError, UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.processes import cores
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.runs.ledger import FAILED, FINISHED, PRUNED, Ledger, Row, without_locks
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation import environment, fit
from fedvlr_jax.simulation.callbacks import Prune
from fedvlr_jax.simulation.run import Result, train_together
from fedvlr_jax.simulation.simulation import build
from fedvlr_jax.simulation.traced import program_of

_SECONDS_BETWEEN_LOOKS = 1.0  # at what other processes have done


@dataclass(frozen=True)
class Plan:
    """A run that is wanted.

    Attributes:
        config: of the run.
        folder: of the run, below that of all.
        dataset: the data, where it is not all that the configuration names.
    """

    config: Config
    folder: Path
    dataset: Dataset | None = None


class Planner:
    """Says which runs are wanted, by what the ledger holds and by nothing else.

    So a planner that is interrupted goes on where it was, and several processes that were told the
    same want the same.
    """

    kind: ClassVar[str]  # what a folder of such runs is called

    def begin(self, ledger: Ledger) -> None:
        """Look at the folder before anything is done.

        Raises:
            UserError: it holds something else.
        """

    def wanted(self, rows: Mapping[str, Row]) -> Mapping[str, Plan]:
        """All runs that are wanted so far, by name, the first to be done first.

        Args:
            rows: how runs have ended.

        Raises:
            UserError: the ledger holds what this planner has not written.
        """
        raise NotImplementedError

    def has_more(self, rows: Mapping[str, Row]) -> bool:  # noqa: ARG002
        """Whether more runs will be wanted, whatever becomes of these."""
        return False

    def ask(self, rows: Mapping[str, Row]) -> None:
        """Want more, if it `has_more`. Only one process asks at a time."""

    def why_to_end(self, run: str) -> Callable[[list[dict]], str | None] | None:  # noqa: ARG002
        """What hears the evaluations of a run, and says why it is not worth going on with."""
        return None


@runtime_checkable
class Listener(Protocol):
    """Hears how runs go on."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def reporter(self, run: str, plan: Plan) -> Reporter:
        """Who is told about a run that begins."""

    def ended(self, run: str, row: Row) -> None:
        """A run has ended, in this process."""

    def known(self, rows: Mapping[str, Row]) -> None:
        """What is known of all runs, after some have ended."""


def execute(
    planner: Planner, out: Path, told: Listener, most: int = 0, retry_failed: bool = False
) -> dict[str, Row]:
    """Do all that a planner wants, alone or beside other processes that were told the same.

    Args:
        planner: says what is wanted.
        out: folder of all runs.
        told: hears of every run that this process does.
        most: runs trained in one program, 0 for as many as memory allows.
        retry_failed: whether runs that failed are tried once more.

    Returns:
        How every run that was wanted ended, by name, in order.

    Raises:
        UserError: the folder cannot be used, holds something else, or data cannot be read.
    """
    cores.begin()
    # Every run begins with a collection of garbage (simulation/memory.py): of what is new since.
    gc.collect()
    gc.freeze()
    ledger = Ledger(out, planner.kind)
    planner.begin(ledger)
    worker = _Worker(planner, ledger, told, most, retry_failed)
    if not ledger.has_locks:
        told.note(without_locks(out))
    if worker.left() or planner.has_more(ledger.rows()):
        for note in _environments(ledger.rows(), out, planner.kind):
            told.note(note)
    while True:
        if worker.trains():
            worker.tell()
            continue
        with ledger.alone():  # others have what is left
            rows = ledger.rows()
            if more := planner.has_more(rows):
                planner.ask(rows)
        if more:
            continue
        if not worker.left():
            return worker.tell()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


class _Worker:
    """One process at work: looks for runs that nobody has, and trains them."""

    def __init__(
        self, planner: Planner, ledger: Ledger, told: Listener, most: int, retry_failed: bool
    ) -> None:
        self._planner, self._ledger, self._told = planner, ledger, told
        self._most, self._retry_failed = most, retry_failed
        self._kept = DatasetCache()
        self._tried: set[str] = set()
        self._checked: set[str] = set()  # runs whose rows are those of what is wanted

    def left(self) -> dict[str, Plan]:
        """What is wanted and not done.

        Raises:
            UserError: a run of this name had other settings.
        """
        rows = self._ledger.rows()
        plans = self._planner.wanted(rows)
        for name in plans.keys() & rows.keys() - self._checked:
            _check_same(name, plans[name].config, rows[name], self._ledger.folder, self._planner)
            self._checked.add(name)
        return {name: plan for name, plan in plans.items() if self._is_left(name, plan, rows)}

    def _is_left(self, name: str, plan: Plan, rows: Mapping[str, Row]) -> bool:
        if (row := rows.get(name)) is None:
            return True
        if row.status == FAILED:
            return self._retry_failed and name not in self._tried
        return row.status == FINISHED and row.settings["rounds"] < plan.config.schedule.rounds

    def trains(self) -> bool:
        """Train the next group of runs that no other process has; whether there was one."""
        left = self.left()
        self._write_groups(left)
        order = {name: number for number, name in enumerate(left)}
        groups = [group for group in self._ledger.groups() if set(group) & set(left)]
        groups.sort(key=lambda group: min(order[name] for name in group if name in order))
        for group in groups:
            with contextlib.ExitStack() as claims:
                # A group is done by the process that has all of it.
                if not all(claims.enter_context(self._ledger.claimed(run)) for run in group):
                    continue
                # Another process may have done some of them since they were listed.
                wanted = self._planner.wanted(self._ledger.rows())
                left = self.left()
                if not set(group) & set(left):
                    continue
                self._tried.update(name for name in group if name in left)
                for name, row in self._trained({name: wanted[name] for name in group}):
                    if name in left:
                        self._ledger.add(name, row)
                        self._told.ended(name, row)
                return True
        return False

    def _write_groups(self, left: Mapping[str, Plan]) -> None:
        """Find runs that one program can train, for all that are in no group yet."""
        wanted = self._planner.wanted(self._ledger.rows())
        groups = self._ledger.groups()
        for group in groups:
            # Fewer runs are asked for than when it was written: those that are left train alone.
            if set(group) & set(left) and not set(group) <= set(wanted):
                self._ledger.ungroup(group)
        grouped = {run for group in groups for run in group}
        by_program: dict[tuple[Config, int], list[str]] = {}
        for name, plan in left.items():
            if name not in grouped:
                by_program.setdefault((program_of(plan.config), id(plan.dataset)), []).append(name)
        for members in by_program.values():
            size = 1 if len(members) == 1 else self._most or self._fitting(left[members[0]])
            # As equal as can be: groups of one size share their program.
            size = -(-len(members) // -(-len(members) // size))
            self._ledger.add_groups(
                [members[first : first + size] for first in range(0, len(members), size)]
            )

    def _fitting(self, plan: Plan) -> int:
        """How many runs like this one the memory holds."""
        if plan.config.execution.private_state == "host":
            return 1
        return fit.runs_together(lambda: build(plan.config, self._data([plan])[0]).federation)

    def _data(self, plans: Sequence[Plan]) -> list[Dataset]:
        loaded = iter(self._kept.load_all([p.config for p in plans if p.dataset is None]))
        return [next(loaded) if plan.dataset is None else plan.dataset for plan in plans]

    def _trained(self, group: Mapping[str, Plan]) -> Iterator[tuple[str, Row]]:
        """Train a group; every run with how it ended."""
        plans = list(group.values())
        try:
            results: Sequence[Any] = train_together(
                [plan.config for plan in plans],
                [self._ledger.folder / plan.folder for plan in plans],
                [self._told.reporter(name, plan) for name, plan in group.items()],
                self._data(plans),
                [[Prune(judge)] if judge else [] for judge in map(self._planner.why_to_end, group)],
            )
        except UnwritableError:  # no run is to blame
            raise
        except (UserError, MemoryError) as reason:
            if len(group) > 1:  # one of them may be to blame, or their number
                self._ledger.ungroup(list(group))
                for name, plan in group.items():
                    yield from self._trained({name: plan})
                return
            results = [reason]
        for name, plan, result in zip(group, plans, results, strict=True):
            yield name, _row(plan.config, result)

    def tell(self) -> dict[str, Row]:
        """Tell what is known of these runs; a folder may hold others."""
        with self._ledger.alone():  # so that no older rows are written over newer ones
            rows = self._ledger.rows()
            known = {name: rows[name] for name in self._planner.wanted(rows) if name in rows}
            self._told.known(known)
        return known


def _row(config: Config, result: Any) -> Row:
    """How a run ended: its result, or why there is none."""
    if isinstance(result, Result):
        return Row(FINISHED, config.flat(), result.summary)
    reason = {"reason": str(result) or type(result).__name__}
    if isinstance(result, PrunedError):
        return Row(PRUNED, config.flat(), reason | {"jax": environment.in_force()})
    return Row(FAILED, config.flat(), reason)


def _check_same(name: str, config: Config, row: Row, out: Path, planner: Planner) -> None:
    """Refuse a folder in which a run of this name had other settings."""
    kind = planner.kind
    if type(row.settings.get("rounds")) is not int:
        raise UserError(f"--out={out}: run {name} has no rounds, expected a {kind}'s folder")
    layout = having(Role.LAYOUT)
    had = Config().flat() | row.settings  # a run may be older than a setting
    wanted = json.loads(json.dumps(config.flat()))
    for setting, value in wanted.items():
        grown = setting == "rounds" and value >= had["rounds"]
        if had.get(setting) != value and not grown and setting not in layout:
            was = short(had.get(setting))
            raise UserError(
                f"--out={out}: holds another {kind}, whose run {name} has --{setting}={was}, now "
                f"{value}; expected the same settings or another folder"
            )


def _environments(rows: Mapping[str, Row], out: Path, kind: str) -> list[str]:
    """What differs between the JAX that runs were trained with and the one of today.

    Raises:
        UserError: the others would get other numbers.
    """
    now, notes = environment.in_force(), []
    for name, row in rows.items():
        began = row.content.get("jax")
        if not isinstance(began, dict):
            continue
        if (reason := environment.difference(began, now)) is not None:
            raise UserError(
                f"--out={out}: holds a {kind} that began with other settings of "
                f"JAX (run {name}): {reason}"
            )
        notes += environment.notes(began, now)
    return [f"{out}: {note}" for note in dict.fromkeys(notes)]
