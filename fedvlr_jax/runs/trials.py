"""A search: what is tried next depends on the validation scores of what was tried before.

Every trial is a few runs, one for each seed. The ledger has the values that were suggested, in
their order; what has become of a trial follows from its runs. So Optuna's study is made anew in
memory from what is on disk, whenever it is asked.
"""

import functools
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedvlr_jax import record
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import check_population, having
from fedvlr_jax.data import DatasetCache
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.record import RUNS_FOLDER
from fedvlr_jax.runs import ledger
from fedvlr_jax.runs.ledger import FINISHED, Ledger, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.runs.space import Search
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
        value: validation score in percent (`analysis.metrics.selection`) of the best round, the
            mean over seeds; of a pruned trial the best until then; None of the others.
        best_round: of the first seed, counted from 1; None where no round was evaluated.
        seconds: of the rounds of all seeds, evaluations and compilation left out.
        reason: why it was pruned or has failed.
        curve: the best score so far after every evaluation of the first seed, by its round.
    """

    state: str
    value: float | None = None
    best_round: int | None = None
    seconds: float | None = None
    reason: str | None = None
    curve: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A trial: its number, counted from 0, the values of what is searched, its outcome."""

    number: int
    params: dict[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class _Suggested:
    """What was suggested, what is trained with, and the runs or why there can be none."""

    params: dict[str, Any]
    used: dict[str, Any]
    plans: dict[str, Plan]
    contradiction: str | None = None


def ended(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are not running, in order of their numbers."""
    return sorted(
        (trial for trial in trials if trial.outcome.state != RUNNING),
        key=lambda trial: trial.number,
    )


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are complete, the best first, the earlier of two with one score."""
    return sorted(
        (trial for trial in trials if trial.outcome.state == COMPLETE),
        key=lambda trial: (-trial.outcome.value, trial.number),
    )


class Sampler(TPESampler):
    """Suggests a trial by the tree-structured Parzen estimator.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", as in Optuna (Akiba et al.
    2019, arXiv:1907.10902), of all parameters together. Until ten trials are complete or pruned,
    they are random; later ones are likely where the better trials are dense and the others are not.

    Its random numbers depend on the search's seed and the trial's number alone. So a search that
    was interrupted suggests what it would have suggested. Where several processes share a search,
    what is suggested depends on which trials have ended, too.

    Args:
        seed: of the search, at least 0.
        number: of the trial.
    """

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(seed=_drawn(seed, number))
        self._seeds = seed, number

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of a parameter that was not drawn with the others."""
        alone = TPESampler(seed=_drawn(*self._seeds, zlib.crc32(param_name.encode())))
        return alone.sample_independent(study, trial, param_name, param_distribution)


def _drawn(*seeds: int) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


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
        self._known: list[_Suggested] = []

    def begin(self, ledger: Ledger) -> None:
        """Take the folder, or find it to be of this search.

        Raises:
            UserError: it is of another one.
        """
        self._ledger = ledger
        known = ledger.settled("search", self._identity)
        if known != self._identity:
            raise UserError(_difference(known, self._identity, ledger.folder))

    def wanted(self, rows: Mapping[str, Row]) -> dict[str, Plan]:
        """The runs of all trials, the later seeds of a trial after its first run."""
        plans = {}
        for suggested in self._suggested():
            for name, plan in suggested.plans.items():
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
            if run == next(iter(suggested.plans), None):
                return functools.partial(self._why_to_prune, suggested.params)
        return None

    def trials(self, rows: Mapping[str, Row]) -> list[Trial]:
        """All trials with what has become of them, in order."""
        return [
            Trial(number, suggested.used, self._outcome(suggested, rows))
            for number, suggested in enumerate(self._suggested())
        ]

    def number_of(self, run: str) -> int | None:
        """The first trial that a run is of, None if it is of none."""
        trials = enumerate(self._suggested())
        return next((number for number, suggested in trials if run in suggested.plans), None)

    def folders(self, params: Mapping[str, Any]) -> list[Path]:
        """The folders of a trial's runs, one for each seed."""
        return [self._ledger.folder / RUNS_FOLDER / name for name in self.search.runs(params)]

    def _suggested(self) -> list[_Suggested]:
        """What was suggested so far, checked, as somebody may have edited it.

        Raises:
            UserError: a value is not one of those that are searched.
        """
        for params in self._ledger.trials()[len(self._known) :]:
            number = len(self._known)
            try:
                self._frozen(RUNNING, params)
            except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
                raise UserError(
                    f"{self._ledger.folder / ledger.DATABASE}: trial {number} has values that no "
                    f"search has suggested ({short(str(error))})"
                ) from None
            used = {name: axis.used(params[name]) for name, axis in self.search.space.items()}
            try:
                runs = self.search.runs(used)
                plans = {name: Plan(run, Path(RUNS_FOLDER, name)) for name, run in runs.items()}
                self._known.append(_Suggested(params, used, plans))
            except UserError as reason:
                self._known.append(_Suggested(params, used, {}, str(reason)))
        return self._known

    def _outcome(self, suggested: _Suggested, rows: Mapping[str, Row]) -> Outcome:
        if suggested.contradiction is not None:
            return Outcome(FAILED, reason=suggested.contradiction, seconds=0.0)
        folders = [self._ledger.folder / plan.folder for plan in suggested.plans.values()]
        ended = [rows[folder.name] for folder in folders if folder.name in rows]
        bad = next((row for row in ended if row.status != FINISHED), None)
        if bad is None and len(ended) < len(folders):
            return Outcome(RUNNING)
        evaluations = [record.evaluations(folder) for folder in folders]
        curve = best_scores(evaluations[0])
        if bad is None:
            scores = [metrics.selection_score(row.content["valid"]) for row in ended]
            state, value = COMPLETE, float(np.mean(scores))
        else:
            state = bad.status
            value = max(curve.values()) if state == PRUNED and curve else None
        return Outcome(
            state,
            value,
            best_round=max(curve, key=curve.get) if curve else None,
            seconds=float(sum(lines[-1]["seconds"] for lines in evaluations if lines)),
            reason=None if bad is None else bad.content["reason"],
            curve=curve,
        )

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
        trials = self._suggested()
        sampler = Sampler(self.search.search_seed, len(trials))
        study = optuna.create_study(sampler=sampler, direction="maximize")
        for suggested in trials:
            outcome = self._outcome(suggested, rows)
            value = outcome.value if outcome.state == COMPLETE else None
            study.add_trial(self._frozen(outcome.state, suggested.params, value, outcome.curve))
        return study

    def _why_to_prune(self, suggested: dict[str, Any], evaluations: list[dict]) -> str | None:
        study, curve = self._study(self._ledger.rows()), best_scores(evaluations)
        if not self._pruner.prune(study, self._frozen(RUNNING, suggested, curve=curve)):
            return None
        return f"after round {max(curve)} below the median of the trials so far"


def best_scores(evaluations: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The best validation score up to every evaluation of a run, in percent, by its round."""
    scores = {
        line["round"]: metrics.selection_score(
            {k.removeprefix(_VALID): v for k, v in line.items() if k.startswith(_VALID)}
        )
        for line in evaluations
    }
    return dict(zip(scores, itertools.accumulate(scores.values(), max), strict=True))


def _fingerprint(search: Search) -> str | None:
    """Of the data that all trials share, None where they do not.

    Raises:
        UserError: they cannot be read, or have too few clients. A search would do nothing but fail.
    """
    first, searched = search.first(), set(search.space)
    if searched & set(having(Role.DATA)):
        return None
    dataset = DatasetCache().load(first)
    if not searched & set(having(Role.CLIENTS)):
        check_population(first, dataset.interactions.n_clients, dataset.interactions.n_items)
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


def _difference(known: Any, wanted: dict[str, Any], folder: Path) -> str:
    known = known if isinstance(known, dict) else {}
    name = next((n for n in [*wanted, *known] if known.get(n) != wanted.get(n)), "--search")
    return (
        f"--out={folder}: holds another search ({name} was {short(known.get(name))}, now "
        f"{wanted.get(name)}), expected the same settings or another folder"
    )
