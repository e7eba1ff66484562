"""A search: what is tried next depends on the validation scores of what was tried before.

Every trial is a few runs, one for each seed. The ledger has the values that were suggested, in
their order; what has become of a trial follows from its runs. So Optuna's study is made anew in
memory from what is on disk, whenever it is asked.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedvlr_jax import record
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import check_population, having
from fedvlr_jax.data import Kept
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.record import RUNS_FOLDER
from fedvlr_jax.runs import ledger
from fedvlr_jax.runs.ledger import FINISHED, Ledger, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.runs.space import Search
from fedvlr_jax.runs.tpe import Sampler
from fedvlr_jax.settings import Role

COMPLETE, PRUNED, FAILED, RUNNING = "complete", ledger.PRUNED, ledger.FAILED, "running"
_STATES = {
    COMPLETE: TrialState.COMPLETE,
    PRUNED: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
    RUNNING: TrialState.RUNNING,
}
_VALID = "valid/"


@dataclass(frozen=True)
class Outcome:
    """What has become of a trial.

    Attributes:
        state: `COMPLETE`, `PRUNED`, `FAILED` or `RUNNING`.
        value: validation score in percent (`analysis.metrics.SELECTION`) of the best round, the
            mean over seeds; of a pruned trial the best until then; None of the others.
        best_round: of the first seed, counted from 1; None where no round was evaluated.
        seconds: of the rounds of all seeds, evaluations and compilation left out.
        reason: why it was pruned or has failed.
    """

    state: str
    value: float | None = None
    best_round: int | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """A trial: its number, counted from 0, the values of what is searched, its outcome."""

    number: int
    params: dict[str, Any]
    outcome: Outcome


def ended(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are not running, in order of their numbers."""
    found = [trial for trial in trials if trial.outcome.state != RUNNING]
    return sorted(found, key=lambda trial: trial.number)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are complete, the best first, the earlier of two with one score."""
    found = [trial for trial in trials if trial.outcome.state == COMPLETE]
    return sorted(found, key=lambda trial: (-trial.outcome.value, trial.number))


class Searching(Planner):
    """Wants the runs of the trials so far, and asks for more.

    A trial's other seeds are wanted once its first run is finished: what is not worth going on with
    is pruned there, by the median rule (Golovin et al. 2017, "Google Vizier", section 3.2): where
    five trials are complete, one whose best score is below the median of theirs up to the same
    round ends.

    Args:
        search: what is searched.
        number: of trials, with those that were pruned or have failed.

    Raises:
        UserError: bad settings, or data that cannot be read or have too few clients.
    """

    kind: ClassVar[str] = "search"

    def __init__(self, search: Search, number: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search, self._number = search, number
        self._identity = json.loads(json.dumps(identity(search, _fingerprint(search))))
        self._pruner = optuna.pruners.MedianPruner(n_warmup_steps=search.prune_from)
        self._distributions = {name: axis.distribution for name, axis in search.space.items()}
        self._curves: dict[str, dict[int, float]] = {}  # of runs that have ended

    def begin(self, ledger: Ledger) -> None:
        """Take the folder, or find it to be of this search.

        Raises:
            UserError: it is of another one.
        """
        self._ledger = ledger
        found = ledger.settled("search", self._identity)
        if found != self._identity:
            raise UserError(_difference(found, self._identity, ledger.folder))

    def wanted(self, rows: Mapping[str, Row]) -> dict[str, Plan]:
        """The runs of all trials, the later seeds of a trial after its first run."""
        plans = {}
        for suggested in self._suggested():
            for name, plan in self._plans(suggested).items():
                plans[name] = plan
                if name not in rows or rows[name].status != FINISHED:
                    break
        return plans

    def has_more(self, rows: Mapping[str, Row]) -> bool:  # noqa: ARG002
        """Whether there are fewer trials than there are to be."""
        return len(self._suggested()) < self._number

    def ask(self, rows: Mapping[str, Row]) -> None:
        """Suggest another trial."""
        self._ledger.add_trial(self._study(rows).ask(self._distributions).params)

    def why_to_end(self, run: str) -> Callable[[list[dict]], str | None] | None:
        """Asks the pruner after every evaluation of a trial's first run."""
        for suggested in self._suggested():
            if run == next(iter(self._plans(suggested)), None):
                return functools.partial(self._why_to_prune, suggested)
        return None

    def trials(self, rows: Mapping[str, Row]) -> list[Trial]:
        """All trials with what has become of them, in order."""
        return [
            Trial(number, self._used(suggested), self._outcome(suggested, rows))
            for number, suggested in enumerate(self._suggested())
        ]

    def number_of(self, run: str) -> int | None:
        """The first trial that a run is of, None if it is of none."""
        runs = (self._plans(suggested) for suggested in self._suggested())
        return next((number for number, names in enumerate(runs) if run in names), None)

    def folders(self, params: Mapping[str, Any]) -> list[Path]:
        """The folders of a trial's runs, one for each seed."""
        return [self._ledger.folder / RUNS_FOLDER / name for name in self.search.runs(params)]

    def _suggested(self) -> list[dict[str, Any]]:
        """What was suggested so far, checked, as somebody may have edited it.

        Raises:
            UserError: a value is not one of those that are searched.
        """
        found = self._ledger.trials()
        for number, params in enumerate(found):
            try:
                self._frozen(RUNNING, params)
            except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
                raise UserError(
                    f"{self._ledger.folder / ledger.DATABASE}: trial {number} has values that no "
                    f"search has suggested ({short(str(error))})"
                ) from None
        return found

    def _used(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """What is trained with."""
        return {name: axis.used(suggested[name]) for name, axis in self.search.space.items()}

    def _plans(self, suggested: Mapping[str, Any]) -> dict[str, Plan]:
        """The runs of a trial; none where its settings contradict each other."""
        try:
            runs = self.search.runs(self._used(suggested))
        except UserError:
            return {}
        return {name: Plan(config, Path(RUNS_FOLDER, name)) for name, config in runs.items()}

    def _outcome(self, suggested: Mapping[str, Any], rows: Mapping[str, Row]) -> Outcome:
        try:
            names = list(self.search.runs(self._used(suggested)))
        except UserError as reason:
            return Outcome(FAILED, reason=str(reason), seconds=0.0)
        found = [rows[name] for name in names if name in rows]
        bad = next((row for row in found if row.status != FINISHED), None)
        if bad is None and len(found) < len(names):
            return Outcome(RUNNING)
        lines = [record.evaluations(self._ledger.folder / RUNS_FOLDER / name) for name in names]
        best = best_of(lines[0])
        if bad is None:
            scores = [metrics.selection_score(row.content["valid"]) for row in found]
            state, value = COMPLETE, float(np.mean(scores))
        else:
            state = bad.status
            value = best.score if state == PRUNED and best else None
        seconds = float(sum(found[-1]["seconds"] for found in lines if found))
        reason = None if bad is None else bad.content["reason"]
        return Outcome(state, value, best and best.round, seconds, reason)

    def _curve(self, suggested: Mapping[str, Any]) -> dict[int, float]:
        """The best score so far of a trial's first run after every evaluation."""
        name = next(iter(self._plans(suggested)), None)
        if name is None:
            return {}
        if name not in self._curves:
            lines = record.evaluations(self._ledger.folder / RUNS_FOLDER / name)
            self._curves[name] = bests(lines)
        return self._curves[name]

    def _frozen(
        self,
        state: str,
        suggested: dict[str, Any],
        value: float | None = None,
        curve: Mapping[int, float] | None = None,
    ) -> FrozenTrial:
        return create_trial(
            state=_STATES[state],
            value=value,
            params=suggested,
            distributions=self._distributions,
            intermediate_values=dict(curve or {}),
        )

    def _study(self, rows: Mapping[str, Row]) -> optuna.Study:
        """Optuna's study as if it had been there all the time."""
        study = optuna.create_study(sampler=Sampler(self.search.search_seed), direction="maximize")
        for suggested in self._suggested():
            outcome = self._outcome(suggested, rows)
            value = outcome.value if outcome.state == COMPLETE else None
            curve = {} if outcome.state == RUNNING else self._curve(suggested)
            study.add_trial(self._frozen(outcome.state, suggested, value, curve))
        return study

    def _why_to_prune(self, suggested: dict[str, Any], lines: list[dict]) -> str | None:
        study, curve = self._study(self._ledger.rows()), bests(lines)
        if not self._pruner.prune(study, self._frozen(RUNNING, suggested, curve=curve)):
            return None
        return f"after round {max(curve)} below the median of the trials so far"


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run so far: validation score in percent, and its round."""

    score: float
    round: int


def best_of(lines: Sequence[Mapping[str, Any]]) -> Best | None:
    """The best of a run's evaluations, the first one of equals; None where there is none."""
    best = None
    for line in lines:
        found = {k.removeprefix(_VALID): v for k, v in line.items() if k.startswith(_VALID)}
        score = metrics.selection_score(found)
        if best is None or score > best.score:
            best = Best(score, line["round"])
    return best


def bests(lines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The best score up to every evaluation of a run, by its round."""
    return {line["round"]: best_of(lines[: number + 1]).score for number, line in enumerate(lines)}


def _fingerprint(search: Search) -> str | None:
    """Of the data that all trials share, None where they do not.

    Raises:
        UserError: they cannot be read, or have too few clients. A search would do nothing but fail.
    """
    first, searched = search.first(), set(search.space)
    if searched & set(having(Role.DATA)):
        return None
    dataset = Kept().load(first)
    if not searched & set(having(Role.CLIENTS)):
        check_population(first, dataset.interactions.n_clients)
    return dataset.fingerprint()


def identity(search: Search, fingerprint: str | None) -> dict[str, Any]:
    """What has to be the same for two searches to be one, by how it is written.

    How many trials there are and how the work is laid out may differ.

    Args:
        search: as the command line gives it.
        fingerprint: of its data, None where trials differ in them.
    """
    config = search.first()
    without = {"seed", *having(Role.LAYOUT), *search.space}
    if fingerprint is not None:  # the path may be spelled differently
        without.add("data")
    return {
        **{f"--search={name}": str(axis) for name, axis in search.space.items()},
        **{f"--{name}": value for name, value in config.flat().items() if name not in without},
        "--seeds": search.seeds,
        "--search_seed": search.search_seed,
        "--prune_from": search.prune_from,
        "the data's fingerprint": fingerprint,
    }


def _difference(found: Any, wanted: dict[str, Any], folder: Path) -> str:
    found = found if isinstance(found, dict) else {}
    name = next((n for n in [*wanted, *found] if found.get(n) != wanted.get(n)), "--search")
    return (
        f"--out={folder}: holds another search ({name} was {short(found.get(name))}, now "
        f"{wanted.get(name)}), expected the same settings or another folder"
    )
