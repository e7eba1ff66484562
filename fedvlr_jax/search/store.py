"""Optuna's study in the folder of a search, and which process does which trial.

A trial that is running belongs to the process that has claimed it. One that nobody has claimed was
killed; the next process that looks for work goes on with it, at the same parameters. Optuna's own
way to find such trials (heartbeats) begins them anew, under other numbers.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from fedvlr_jax import files
from fedvlr_jax.config import having
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.search.sampler import Sampler
from fedvlr_jax.search.space import Search
from fedvlr_jax.search.trials import COMPLETE, FAILED, PRUNED, RUNNING, Outcome, Trial
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation import environment
from fedvlr_jax.sweep.claims import Claims, without_locks
from fedvlr_jax.sweep.store import DATABASE as SWEEPS
from fedvlr_jax.sweep.store import is_of_disk

DATABASE = "study.sqlite"
_STUDY = "search"
_SAME = "search"  # the attribute that says which search it is
_OUTCOME = "outcome"  # the attribute of a trial with what Optuna has no place for
_BESIDE = ("best_round", "seconds", "reason")
_JAX = "jax"  # the attribute that says with which JAX it was searched
# What reading rows ends in that somebody has edited.
_OF_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError)
_PATIENCE = 60.0  # seconds to wait while another process writes
_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
_NAMES = {state: name for name, state in _STATES.items()} | {TrialState.RUNNING: RUNNING}


class Store(Claims):
    """The trials of a search, in a folder that is made if it is not there.

    Args:
        folder: of the search.
        search: what it is.
        fingerprint: of its data, None where trials differ in them.

    Raises:
        UserError: the folder cannot be written, holds something else, or its database is damaged.

    Attributes:
        notes: what a person should know before the search goes on.
    """

    def __init__(self, folder: Path, search: Search, fingerprint: str | None) -> None:
        if (folder / SWEEPS).exists():
            raise UserError(f"--out={folder}: holds a sweep, expected another folder")
        super().__init__(folder)
        self._path = folder / DATABASE
        if self._path.exists():
            files.plain_size(self._path)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._search = search
        self._reported: set[int] = set()  # rounds of this process's trial that Optuna knows
        # What is not locked must be told so: SQLite would wait for a lock.
        address = {} if self.has_locks else {"nolock": "1", "uri": "true"}
        database = self._path.absolute().as_uri() if address else str(self._path)
        url = sqlalchemy.URL.create("sqlite", database=database, query=address)
        with self._told(), self.alone():  # tables are made once
            self._storage = optuna.storages.RDBStorage(
                url.render_as_string(), {"connect_args": {"timeout": _PATIENCE}}
            )
            self._study = optuna.create_study(
                study_name=_STUDY,
                storage=self._storage,
                sampler=Sampler(search.search_seed),
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=search.prune_from),
                direction="maximize",
                load_if_exists=True,
            )
            wanted = json.loads(json.dumps(identity(search, fingerprint)))
            found = self._study.user_attrs.get(_SAME)
            began, now = self._study.user_attrs.get(_JAX, {}), environment.in_force()
            if found is None:
                began = now
                self._study.set_user_attr(_SAME, wanted)
        reason = None
        if found is not None and found != wanted:
            reason = _difference(found, wanted, folder)
        elif (other := environment.difference(_checked(began), now)) is not None:
            reason = (
                f"--out={folder}: holds a search that began with other settings of JAX: {other}"
            )
        if reason is not None:
            self.close()
            raise UserError(reason)
        self.notes = [f"{folder}: {note}" for note in environment.notes(_checked(began), now)]
        if not self.has_locks:
            self.notes.append(without_locks(folder))
        with self._told():
            self._study.set_user_attr(_JAX, environment.joined(_checked(began), now))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what Optuna and its database say into a sentence."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            reason = short(" ".join(str(error).split("[SQL")[0].split()))
            code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
            kind = UnwritableError if is_of_disk(code) else UserError
            raise kind(f"{self._path}: cannot be used ({reason})") from None
        except _OF_DAMAGE as error:
            if isinstance(error, UserError):
                raise
            reason = short(f"{type(error).__name__} {error}")
            raise UserError(
                f"{self._path}: has content that no search has written ({reason})"
            ) from None

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @contextlib.contextmanager
    def claimed_trial(self, most: int) -> Iterator[optuna.Trial | None]:
        """A trial for this process to do, its own inside; None where there is none to begin.

        Args:
            most: trials of the search. One that was killed comes before a new one.
        """
        with contextlib.ExitStack() as claims:
            with self._told(), self.alone():
                trial = self._killed(claims) or self._new(claims, most)
            yield trial

    def is_waited_for(self) -> bool:
        """Whether a trial is running, here or elsewhere, or was killed."""
        with self._told():
            return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def params(self, trial: optuna.Trial) -> dict[str, Any]:
        """What a trial is trained with."""
        return self._used(trial.params)

    def why_to_prune(self, trial: optuna.Trial, step: int, score: float) -> str | None:
        """Report the best score up to a round; why the trial is not worth more, None if it is.

        By the median rule (Golovin et al. 2017, "Google Vizier", section 3.2): where five trials
        are complete, one whose best score is below the median of theirs up to the same round ends.
        """
        with self._told():
            if step not in self._reported:
                trial.report(score, step)
                self._reported.add(step)
            if not trial.should_prune():
                return None
        return f"after round {step} below the median of the trials so far"

    def end(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Write down what has become of a trial."""
        # The value of a pruned trial is what it has reported last.
        value = outcome.value if outcome.state == COMPLETE else None
        with self._told():
            trial.set_user_attr(_OUTCOME, {name: getattr(outcome, name) for name in _BESIDE})
            self._study.tell(trial, value, _STATES[outcome.state])

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        with self._told():
            return [self._trial(found) for found in self._study.get_trials(deepcopy=False)]

    def _trial(self, found: FrozenTrial) -> Trial:
        outcome = Outcome(_NAMES[found.state], found.value, **found.user_attrs.get(_OUTCOME, {}))
        numbers = (outcome.value, outcome.best_round, outcome.seconds)
        if any(x is not None and type(x) not in (int, float) for x in numbers):
            raise ValueError(f"trial {found.number} has an outcome that is not a number")
        if outcome.state == COMPLETE and outcome.value is None:
            raise ValueError(f"trial {found.number} is complete and has no value")
        if not isinstance(outcome.reason, str | None):
            raise ValueError(f"trial {found.number} has a reason that is not text")
        return Trial(found.number, self._used(found.params), outcome)

    def _used(self, suggested: dict[str, Any]) -> dict[str, Any]:
        """What is trained with; less than the space has of a trial killed as it began."""
        space = self._search.space
        return {
            name: axis.used(suggested[name]) for name, axis in space.items() if name in suggested
        }

    def _killed(self, claims: contextlib.ExitStack) -> optuna.Trial | None:
        study = self._storage.get_study_id_from_name(_STUDY)
        for listed in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not claims.enter_context(self.claimed(_claim(listed.number))):
                continue
            number = self._storage.get_trial_id_from_study_id_trial_number(study, listed.number)
            found = self._storage.get_trial(number)
            # Its process may have ended it since it was listed, and then let go of it.
            if found.state == TrialState.RUNNING:
                self._reported = set(found.intermediate_values)
                # Optuna makes such objects itself, but not of a trial that has begun already.
                return self._suggested(optuna.Trial(self._study, number))
        return None

    def _new(self, claims: contextlib.ExitStack, most: int) -> optuna.Trial | None:
        if len(self._study.get_trials(deepcopy=False)) >= most:
            return None
        trial = self._study.ask()
        claims.enter_context(self.claimed(_claim(trial.number)))
        self._reported = set()
        return self._suggested(trial)

    def _suggested(self, trial: optuna.Trial) -> optuna.Trial:
        for name, axis in self._search.space.items():
            axis.suggest(trial, name)
        return trial


def _checked(began: Any) -> dict[str, Any]:
    """What was written of JAX; nothing where somebody has put something else there."""
    return began if isinstance(began, dict) else {}


def _claim(number: int) -> str:
    return f"trial-{number}"


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
    name = next(n for n in [*wanted, *found] if found.get(n) != wanted.get(n))
    return (
        f"--out={folder}: holds another search ({name} was {short(found.get(name))}, now "
        f"{wanted.get(name)}), expected the same settings or another folder"
    )
