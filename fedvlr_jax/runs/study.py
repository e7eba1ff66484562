"""A comparison: rates chosen on validation for every combination, then several seeds.

What it comes to can be trained once more with something changed: without a modality, with noise,
for some of the users.
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
        label: the column of a table that tells of it, and what stands there.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Dataset | None = None
    label: tuple[str, str] = ("", "")


_UNCHANGED = Change("")


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
        changes: to train combinations with once more, at their best rates.
        folder: below `out`, that the runs are in.
        fingerprint: of the data, None where the settings say all of them.
    """

    settings: dict[str, Any]
    grid: RateGrid
    seeds: Sequence[int]
    combinations: Sequence[Combination]
    out: Path
    changes: Mapping[Combination, Sequence[Change]] = field(default_factory=dict)
    folder: str = ""
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
            for change in (_UNCHANGED, *self.changes.get(combination, ())):
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
        known = ledger.settled("data_fingerprint", self.fingerprint)
        if known != self.fingerprint:
            raise UserError(
                f"--out={ledger.folder}: holds a study of other data (their fingerprint was "
                f"{short(known)}, now {self.fingerprint}), expected the same or another folder"
            )

    def wanted(self, rows: Mapping[str, Row]) -> dict[str, Plan]:
        """The search of all combinations, other seeds where rates are known, then what changes."""
        first: dict[str, Plan] = {}
        later: dict[str, Plan] = {}
        for combination in self.combinations:
            first |= self._search(combination)
            for _, runs in self._chosen(combination, rows):
                first |= runs
            if result := self.result(combination, rows):
                for change in self.changes.get(combination, ()):
                    later |= self._runs(combination, [result.rates], self.seeds, change)
        return first | later

    def searched(self, combination: Combination) -> list[str]:
        """The names of the runs that search the rates of a combination."""
        return list(self._search(combination))

    def result(self, combination: Combination, rows: Mapping[str, Row]) -> Found | None:
        """What a combination came to, None while that is not known, or where all rates fail."""
        for rates, runs in self._chosen(combination, rows)[-1:]:
            return self._finished(combination, rates, runs, rows)
        return None

    def changed(self, result: Found, change: Change, rows: Mapping[str, Row]) -> Found | None:
        """A result, trained with a change; None where a run failed or is left to do."""
        runs = self._runs(result.combination, [result.rates], self.seeds, change)
        return self._finished(result.combination, result.rates, runs, rows)

    def config(
        self, combination: Combination, rates: Rates, seed: int, change: Change = _UNCHANGED
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
        change: Change = _UNCHANGED,
    ) -> dict[str, Plan]:
        """A run for each pair of rates and each seed, by name."""
        here = "-".join(filter(None, (combination.name, change.name)))
        members = () if change.members is None else ("members",)
        plans = {}
        for rates, seed in itertools.product(grid, seeds):
            run = f"{here}/server{rates[0]:g}-client{rates[1]:g}-seed{seed}"
            name = "/".join(filter(None, (self.folder, run)))
            if name not in self._planned:
                config = self.config(combination, rates, seed, change)
                folder = Path(self.folder, *members, RUNS_FOLDER, run)
                self._planned[name] = Plan(config, folder, change.members)
            plans[name] = self._planned[name]
        return plans

    def _search(self, combination: Combination) -> dict[str, Plan]:
        """The first seed at all rates."""
        return self._runs(combination, self.grid, self.seeds[:1])

    def _chosen(
        self, combination: Combination, rows: Mapping[str, Row]
    ) -> list[tuple[Rates, dict[str, Plan]]]:
        """The best rates with the runs of all seeds; where one fails, the next best ones, too.

        None before the search has ended. What it could not finish at is no rate to choose.
        """
        plans = self._search(combination)
        if not all(_has_ended(*plan, rows) for plan in plans.items()):
            return []
        scores = {
            rates: metrics.selection_score(rows[name].content["valid"])
            for rates, name in zip(self.grid, plans, strict=True)
            if rows[name].status == FINISHED
        }
        chosen = []
        # The first of equal scores: the smallest rates.
        for rates in sorted(scores, key=lambda rates: -scores[rates]):
            chosen.append((rates, self._runs(combination, [rates], self.seeds)))
            if not _has_failed(chosen[-1][1], rows):
                break
        return chosen

    def _finished(
        self,
        combination: Combination,
        rates: Rates,
        runs: Mapping[str, Plan],
        rows: Mapping[str, Row],
    ) -> Found | None:
        """What runs came to, if all have finished."""
        if _has_failed(runs, rows) or not all(_has_ended(*plan, rows) for plan in runs.items()):
            return None
        results = (Result(rows[n].content, self.out / plan.folder) for n, plan in runs.items())
        return Found(combination, rates, tuple(results))


class Studies(Planner):
    """Several studies in one folder, each in a folder of its own below it."""

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
