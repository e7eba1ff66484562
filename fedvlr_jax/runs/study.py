"""A comparison: settings chosen on validation for every combination, then several seeds.

What it comes to can be trained once more with something changed: without a modality, with noise,
for some of the users.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import BY_SOLVER, Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.record import RUNS_FOLDER
from fedvlr_jax.runs.declare import run_name
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Ledger, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.simulation.run import Result, check

Point = tuple[tuple[str, Any], ...]  # settings with their values, in order


def points(values: Mapping[str, Sequence[Any]], most: int = 0) -> tuple[Point, ...]:
    """What every combination is tried with: all combinations of settings' values.

    Args:
        values: of each setting.
        most: how many are tried, drawn at random if there are more; always the same ones for the
            same values. 0 means all.

    Example:
        >>> points({"server_lr": (0.1, 0.3), "dim": (64,)})
        ((('server_lr', 0.1), ('dim', 64)), (('server_lr', 0.3), ('dim', 64)))
        >>> len(points({"server_lr": (0.1, 0.3), "dim": (32, 64)}, most=3))
        3
    """
    sizes = tuple(map(len, values.values()))
    number = math.prod(sizes)
    if 0 < most < number:
        chosen = np.sort(np.random.default_rng(0).choice(number, most, replace=False))
    else:
        chosen = np.arange(number)
    return tuple(
        tuple((name, values[name][k]) for name, k in zip(values, places, strict=True))
        for places in zip(*np.unravel_index(chosen, sizes), strict=True)
    )


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
    """What a combination came to: what validation chose, and a finished run per seed."""

    combination: Combination
    point: Point
    runs: tuple[Result, ...]


@dataclass(frozen=True)
class Study(Planner):
    """Runs that differ in backbone, variant, what is searched and seed, and share everything else.

    The first seed is searched with; a point at which its run fails is left out. The other seeds
    train at the best one; where one of them fails, at the next best.

    Attributes:
        settings: of `Config.of`, but for what differs.
        grids: the points to try with every combination that is compared, at least one, all with the
            same settings.
        seeds: of the runs, at least one.
        out: folder of the study.
        changes: to train combinations with once more, at their best point.
        folder: below `out`, that the runs are in.
        fingerprint: of the data, None where the settings say all of them.
    """

    settings: dict[str, Any]
    grids: Mapping[Combination, Sequence[Point]]
    seeds: Sequence[int]
    out: Path
    changes: Mapping[Combination, Sequence[Change]] = field(default_factory=dict)
    folder: str = ""
    fingerprint: str | None = None
    # A planner is asked often, and a configuration takes a while to check.
    _planned: dict[tuple, tuple[str, Plan]] = field(default_factory=dict, init=False, repr=False)

    kind: ClassVar[str] = "study"

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Those that are compared."""
        return tuple(self.grids)

    def check(self, dataset: Dataset) -> None:
        """Refuse now what would be refused when runs begin.

        Args:
            dataset: the data that the settings name.

        Raises:
            UserError: settings that contradict each other or do not fit data or devices.
        """
        for combination, grid in self.grids.items():
            point = grid[0]
            for change in (_UNCHANGED, *self.changes.get(combination, ())):
                configs = [self.config(combination, point, s, change) for s in self.seeds]
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
        """The search of all combinations, other seeds where that is over, then what changes."""
        first: dict[str, Plan] = {}
        later: dict[str, Plan] = {}
        for combination in self.combinations:
            first |= self._search(combination)
            for _, runs in self._chosen(combination, rows):
                first |= runs
            if result := self.result(combination, rows):
                for change in self.changes.get(combination, ()):
                    later |= self._runs(combination, [result.point], self.seeds, change)
        return first | later

    def searched(self, combination: Combination) -> list[str]:
        """The names of the runs of a combination's search."""
        return list(self._search(combination))

    def result(self, combination: Combination, rows: Mapping[str, Row]) -> Found | None:
        """What a combination came to, None while that is not known, or where all fail."""
        for point, runs in self._chosen(combination, rows)[-1:]:
            return self._finished(combination, point, runs, rows)
        return None

    def changed(self, result: Found, change: Change, rows: Mapping[str, Row]) -> Found | None:
        """A result, trained with a change; None where a run failed or is left to do."""
        runs = self._runs(result.combination, [result.point], self.seeds, change)
        return self._finished(result.combination, result.point, runs, rows)

    def config(
        self, combination: Combination, point: Point, seed: int, change: Change = _UNCHANGED
    ) -> Config:
        """The configuration of one run."""
        chosen = {
            "backbone": combination.backbone,
            "variant": combination.variant,
            "seed": seed,
        }
        settings = self.settings | dict(point) | chosen
        if not change.settings:
            return Config.of(**settings)
        # A change of the solver is no change of the defaults that go with it.
        flat = Config.of(**settings).flat()
        filled = {name: flat[name] for name in BY_SOLVER}
        return Config.of(**settings | filled | dict(change.settings))

    def _runs(
        self,
        combination: Combination,
        grid: Iterable[Point],
        seeds: Iterable[int],
        change: Change = _UNCHANGED,
    ) -> dict[str, Plan]:
        """A run for each point and each seed, by name."""
        here = "-".join(filter(None, (combination.name, change.name)))
        members = () if change.members is None else ("members",)
        plans = {}
        for point, seed in itertools.product(grid, seeds):
            planned = here, point, seed
            if planned not in self._planned:
                config = self.config(combination, point, seed, change)
                run = f"{here}/{run_name(config, [*dict(point), 'seed'])}"
                folder = Path(self.folder, *members, RUNS_FOLDER, run)
                name = "/".join(filter(None, (self.folder, run)))
                self._planned[planned] = name, Plan(config, folder, change.members)
            name, plan = self._planned[planned]
            plans[name] = plan
        return plans

    def _search(self, combination: Combination) -> dict[str, Plan]:
        """The first seed at all points."""
        return self._runs(combination, self.grids[combination], self.seeds[:1])

    def _chosen(
        self, combination: Combination, rows: Mapping[str, Row]
    ) -> list[tuple[Point, dict[str, Plan]]]:
        """The best point with the runs of all seeds; where one fails, the next best one, too.

        None before the search has ended. What it could not finish at is no point to choose.
        """
        plans = self._search(combination)
        if not all(_has_ended(*plan, rows) for plan in plans.items()):
            return []
        scores = {
            point: metrics.selection_score(rows[name].content["valid"])
            for point, name in zip(self.grids[combination], plans, strict=True)
            if rows[name].status == FINISHED
        }
        chosen = []
        # The first of equal scores.
        for point in sorted(scores, key=lambda point: -scores[point]):
            chosen.append((point, self._runs(combination, [point], self.seeds)))
            if not _has_failed(chosen[-1][1], rows):
                break
        return chosen

    def _finished(
        self,
        combination: Combination,
        point: Point,
        runs: Mapping[str, Plan],
        rows: Mapping[str, Row],
    ) -> Found | None:
        """What runs came to, if all have finished."""
        if _has_failed(runs, rows) or not all(_has_ended(*plan, rows) for plan in runs.items()):
            return None
        results = (Result(rows[n].content, self.out / plan.folder) for n, plan in runs.items())
        return Found(combination, point, tuple(results))


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
