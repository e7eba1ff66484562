"""A comparison: rates chosen on validation for every combination, then several seeds.

What was found can be trained once more with something changed: without a modality, with noise, for
a part of the users.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.record import RUNS_FOLDER
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Ledger, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.simulation.run import Result, check

Rates = tuple[float, float]  # of the server and of the client's head


@dataclass(frozen=True)
class RateGrid:
    """The learning rates that every combination is tried with."""

    server: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
    client: tuple[float, ...] = (1e-2, 3e-2, 1e-1)

    def __iter__(self) -> Any:
        """Every pair of rates."""
        return itertools.product(self.server, self.client)


@dataclass(frozen=True)
class Combination:
    """A backbone with a variant."""

    backbone: str
    variant: str

    @property
    def name(self) -> str:
        """For folders and people."""
        return f"{self.backbone}-{self.variant}"


@dataclass(frozen=True)
class Change:
    """What is different where a combination is trained once more, every seed, at its rates.

    Attributes:
        name: for folders and people.
        settings: of `Config.of`.
        members: the data, where it is that of some users only; its runs are in `members/`.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Dataset | None = None


_NOTHING = Change("")


@dataclass(frozen=True)
class Found:
    """What a combination came to: the rates that validation chose, and a finished run per seed."""

    combination: Combination
    rates: Rates
    runs: tuple[Result, ...]


@dataclass(frozen=True)
class Study(Planner):
    """Runs that differ in backbone, variant, rates and seed, and share everything else.

    The first seed searches the rates; rates at which a run fails are left out. The other seeds
    train at the best ones; where one of them fails, at the next best.

    Attributes:
        settings: of `Config.of`, but for what differs.
        grid: rates to try.
        seeds: of the runs, at least one.
        combinations: to compare.
        out: folder of the study.
        changes: to train what was found with, by combination.
        place: folder below `out` that the runs are in.
        fingerprint: of the data, None where the settings say all of them.
    """

    settings: dict[str, Any]
    grid: RateGrid
    seeds: Sequence[int]
    combinations: Sequence[Combination]
    out: Path
    changes: Mapping[Combination, Sequence[Change]] = field(default_factory=dict)
    place: str = ""
    fingerprint: str | None = None
    # A planner is asked often, and a configuration takes a while to check.
    _planned: dict[str, Plan] = field(default_factory=dict, init=False, repr=False)

    kind: ClassVar[str] = "study"

    def check(self, dataset: Dataset) -> None:
        """Refuse now what would be refused when runs begin.

        Args:
            dataset: the data that the settings name.

        Raises:
            UserError: settings that contradict each other or do not fit data or devices.
        """
        rates = next(iter(self.grid))
        for combination in self.combinations:
            for change in (_NOTHING, *self.changes.get(combination, ())):
                configs = [self.config(combination, rates, s, change) for s in self.seeds]
                # Seeds differ in the sample of clients that is evaluated, and in nothing else.
                for config in configs if configs[0].schedule.eval_clients else configs[:1]:
                    check(config, change.members or dataset)

    def begin(self, ledger: Ledger) -> None:
        """Take the folder, or find it to be of the same data.

        Raises:
            UserError: it is of others.
        """
        if self.fingerprint is None:
            return
        found = ledger.settled("data_fingerprint", self.fingerprint)
        if found != self.fingerprint:
            raise UserError(
                f"--out={ledger.folder}: holds a study of other data (their fingerprint was "
                f"{short(found)}, now {self.fingerprint}), expected the same or another folder"
            )

    def wanted(self, rows: Mapping[str, Row]) -> dict[str, Plan]:
        """The search of all combinations, other seeds where rates are known, then what changes."""
        first: dict[str, Plan] = {}
        later: dict[str, Plan] = {}
        for combination in self.combinations:
            first |= self._runs(combination, self.grid, self.seeds[:1])
            for rates in self._ranked(combination, rows):
                runs = self._runs(combination, [rates], self.seeds)
                first |= runs
                if not _has_failed(runs, rows):
                    break
            found = self.found(combination, rows)
            for change in self.changes.get(combination, ()) if found else ():
                later |= self._runs(combination, [found.rates], self.seeds, change)
        return first | later

    def is_searched(self, combination: Combination, rows: Mapping[str, Row]) -> bool:
        """Whether it is known what a combination comes to, or that it fails at all rates."""
        plans = self._runs(combination, self.grid, self.seeds[:1])
        if not all(_has_ended(*plan, rows) for plan in plans.items()):
            return False
        ranked = (self._runs(combination, [r], self.seeds) for r in self._ranked(combination, rows))
        return self.found(combination, rows) is not None or all(
            _has_failed(runs, rows) for runs in ranked
        )

    def searched(self, combination: Combination) -> list[str]:
        """The names of the runs that search the rates of a combination."""
        return list(self._runs(combination, self.grid, self.seeds[:1]))

    def found(self, combination: Combination, rows: Mapping[str, Row]) -> Found | None:
        """What a combination came to, None while that is not known, or where all rates fail."""
        for rates in self._ranked(combination, rows):
            runs = self._runs(combination, [rates], self.seeds)
            if not _has_failed(runs, rows):
                return self._results(combination, rates, runs, rows)
        return None

    def changed(self, found: Found, change: Change, rows: Mapping[str, Row]) -> Found | None:
        """What was found, trained with a change; None where a run failed or is left to do."""
        runs = self._runs(found.combination, [found.rates], self.seeds, change)
        return self._results(found.combination, found.rates, runs, rows)

    def config(
        self, combination: Combination, rates: Rates, seed: int, change: Change = _NOTHING
    ) -> Config:
        """The configuration of one run."""
        chosen = {
            "backbone": combination.backbone,
            "variant": combination.variant,
            "server_lr": rates[0],
            "client_lr": rates[1],
            "seed": seed,
        }
        return Config.of(**self.settings | chosen | dict(change.settings))

    def _runs(
        self,
        combination: Combination,
        grid: Iterable[Rates],
        seeds: Iterable[int],
        change: Change = _NOTHING,
    ) -> dict[str, Plan]:
        """A run for each pair of rates and each seed, by name."""
        here = "-".join(filter(None, (combination.name, change.name)))
        members = () if change.members is None else ("members",)
        plans = {}
        for rates, seed in itertools.product(grid, seeds):
            run = f"{here}/server{rates[0]:g}-client{rates[1]:g}-seed{seed}"
            name = "/".join(filter(None, (self.place, run)))
            if name not in self._planned:
                config = self.config(combination, rates, seed, change)
                folder = Path(self.place, *members, RUNS_FOLDER, run)
                self._planned[name] = Plan(config, folder, change.members)
            plans[name] = self._planned[name]
        return plans

    def _ranked(self, combination: Combination, rows: Mapping[str, Row]) -> list[Rates]:
        """Rates at which the first seed finished, the best first; none before all have ended."""
        plans = self._runs(combination, self.grid, self.seeds[:1])
        if not all(_has_ended(*plan, rows) for plan in plans.items()):
            return []
        scores = {
            rates: metrics.selection_score(rows[name].content["valid"])
            for rates, name in zip(self.grid, plans, strict=True)
            if rows[name].status == FINISHED
        }
        # The first of equal scores: the smallest rates.
        return sorted(scores, key=lambda rates: -scores[rates])

    def _results(
        self,
        combination: Combination,
        rates: Rates,
        runs: Mapping[str, Plan],
        rows: Mapping[str, Row],
    ) -> Found | None:
        """What runs came to, if they have finished."""
        if _has_failed(runs, rows) or not all(_has_ended(*plan, rows) for plan in runs.items()):
            return None
        results = (Result(rows[n].content, self.out / plan.folder) for n, plan in runs.items())
        return Found(combination, rates, tuple(results))


class Studies(Planner):
    """Several studies in one folder, each in its own place below it."""

    kind: ClassVar[str] = Study.kind

    def __init__(self, studies: Sequence[Study]) -> None:
        self._studies = studies

    def wanted(self, rows: Mapping[str, Row]) -> dict[str, Plan]:
        """The runs of all, one study after the other."""
        return functools.reduce(operator.or_, (study.wanted(rows) for study in self._studies))


def _has_ended(name: str, plan: Plan, rows: Mapping[str, Row]) -> bool:
    """Whether a run has failed, or finished as many rounds as are wanted."""
    row = rows.get(name)
    if row is None or row.status == FAILED:
        return row is not None
    return row.settings["rounds"] >= plan.config.schedule.rounds


def _has_failed(runs: Iterable[str], rows: Mapping[str, Row]) -> bool:
    return any(name in rows and rows[name].status == FAILED for name in runs)
