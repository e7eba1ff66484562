"""Doing a search: every trial once, whatever happens in between."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import optuna

from fedvlr_jax import record
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config, check_population, having
from fedvlr_jax.data import Kept
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.processes import cores
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.search.space import Search
from fedvlr_jax.search.store import Store
from fedvlr_jax.search.trials import COMPLETE, FAILED, PRUNED, RUNNING, Outcome, Trial
from fedvlr_jax.search.watch import PrunedError, Watched, best_of
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation.run import train

_SECONDS_BETWEEN_LOOKS = 1.0  # at what other processes have done
_RUNS_FOLDER = "runs"


@runtime_checkable
class Told(Protocol):
    """Hears how a search goes on."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def begun(self, trial: Trial) -> None:
        """This process begins a trial, or goes on with one."""

    def reporter(self, trial: Trial, run: str) -> Reporter:
        """Who is told about a run of it."""

    def ended(self, trial: Trial) -> None:
        """A trial is complete, pruned or has failed."""

    def known(self, trials: Sequence[Trial]) -> None:
        """What is known of all trials, after one has ended."""


def execute(search: Search, out: Path, told: Told, trials: int) -> list[Trial]:
    """Do what is left of a search, alone or beside other processes that were told the same.

    Args:
        search: what is searched.
        out: folder of the search; runs are in `runs/<their parameters>`.
        told: hears of every trial that this process does.
        trials: how many there are, with those that were pruned or have failed.

    Returns:
        All trials, in order.

    Raises:
        UserError: bad settings, data that cannot be read, or a folder that cannot be used or holds
            another search.
    """
    cores.begin()
    first, kept = search.first(), Kept()
    with contextlib.closing(Store(out, search, _fingerprint(search, first, kept))) as store:
        for note in store.notes:
            told.note(note)
        _tell(told, store)
        while True:
            with store.claimed_trial(trials) as trial:
                if trial is not None:
                    params = store.params(trial)
                    told.begun(Trial(trial.number, params, Outcome(RUNNING)))
                    outcome = _outcome(search, out, told, store, trial, kept)
                    store.end(trial, outcome)
                    told.ended(Trial(trial.number, params, outcome))
            if trial is None:
                if not store.is_waited_for():
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)  # others have what is left
            else:
                _tell(told, store)
        return _tell(told, store)


def run_folders(search: Search, out: Path, params: dict[str, Any]) -> list[Path]:
    """The folders of a trial's runs, one for each seed."""
    return [out / _RUNS_FOLDER / name for name in search.runs(params)]


def _fingerprint(search: Search, first: Config, kept: Kept) -> str | None:
    """Of the data that all trials share, None where they do not.

    Raises:
        UserError: they cannot be read, or have too few clients. A search would do nothing but fail.
    """
    searched = set(search.space)
    if searched & set(having(Role.DATA)):
        return None
    dataset = kept.load(first)
    if not searched & set(having(Role.CLIENTS)):
        check_population(first, dataset.interactions.n_clients)
    return dataset.fingerprint()


def _tell(told: Told, store: Store) -> list[Trial]:
    with store.alone():  # so that no older trials are written over newer ones
        found = store.trials()
        told.known(found)
    return found


def _outcome(
    search: Search, out: Path, told: Told, store: Store, trial: optuna.Trial, kept: Kept
) -> Outcome:
    """Train a trial's runs; what has become of it."""
    params = store.params(trial)
    state, value, reason = COMPLETE, None, None
    try:
        scores = list(_scores(search, out, told, store, trial, kept))
        value = float(np.mean(scores))
    except PrunedError as pruned:
        state, reason = PRUNED, str(pruned)
    except UnwritableError:  # the trial is not to blame
        raise
    except (UserError, MemoryError) as failure:
        state, reason = FAILED, str(failure) or type(failure).__name__
    found = _evaluated(search, out, params)
    best = best_of(found[0]) if found else None
    return Outcome(
        state,
        best.score if state == PRUNED and best else value,
        best and best.round,
        float(sum(lines[-1]["seconds"] for lines in found if lines)),
        reason,
    )


def _evaluated(search: Search, out: Path, params: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The evaluations of every run; none where settings contradict each other."""
    with contextlib.suppress(UserError):
        return [record.evaluations(folder) for folder in run_folders(search, out, params)]
    return []


def _scores(
    search: Search, out: Path, told: Told, store: Store, trial: optuna.Trial, kept: Kept
) -> Iterator[float]:
    """Each seed's validation score in percent; the first seed's run may be pruned."""
    params = store.params(trial)
    shown = Trial(trial.number, params, Outcome(RUNNING))
    for place, (name, config) in enumerate(search.runs(params).items()):
        folder = out / _RUNS_FOLDER / name
        reporter = told.reporter(shown, name)
        if place == 0:
            ask = functools.partial(store.why_to_prune, trial)
            reporter = Watched(reporter, folder, ask)
        # Two trials may have the same parameters: the second finds what the first has done.
        with store.waited_for(name):
            result = train(config, folder, reporter, kept.load(config))
        yield metrics.selection_score(result.summary["valid"])
