"""What a sweep will take, before it is begun: seconds from a few rounds of a small population.

Both come from a population of at most `_CLIENTS`. Of memory the compiler tells what its programs
need, and every client more takes its own data and private state; seconds are measured, as they
depend on the machine more than on anything that could be counted.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedvlr_jax import record
from fedvlr_jax.config import Config
from fedvlr_jax.data import DatasetCache
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation import fit, memory, trainers
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.simulation import build
from fedvlr_jax.simulation.traced import program_of
from fedvlr_jax.simulation.trainer import SMALL

_CLIENTS = 1000  # of a population that is timed at most; beyond it time grows with the clients
_ROUNDS = 3  # that are timed with many clients, and with few; the first ones warm up
_STAY_AWAY = 0.9  # the share of clients that does so where few are timed
_BUCKETS = 4  # that a population gets where it is large
# Measured (docs/sweeps.md): what a sweep took lies between what is foretold over and times this.
ERROR = 1.5


@dataclass(frozen=True)
class Estimate:
    """What a run alone takes, about: seconds from start to end, and bytes of memory at most.

    `compiling` are the seconds of those that it spends compiling, 0 for a run whose program an
    earlier one has compiled.
    """

    seconds: float
    bytes: int
    compiling: float


@dataclass(frozen=True)
class Timed:
    """Seconds of one population, from which those of others like it are told.

    Attributes:
        clients: of the population.
        data: to draw it, or to read it.
        compiling: all programs of a run.
        round: of a round without clients.
        update: what a round takes longer for every client that trains.
        evaluation: of everybody.
        saving: a checkpoint.
        state: bytes of everybody's private states.
    """

    clients: int
    data: float
    compiling: float
    round: float
    update: float
    evaluation: float
    saving: float
    state: int


def memory_of(config: Config, kept: DatasetCache, most: int | None = None) -> int:
    """Bytes of memory that a run takes at most, about, if it is not interrupted.

    Those of this process, which has the same libraries, of the programs that it compiles for a
    small population, and of what every client adds to that.

    Args:
        config: of the run.
        kept: the data set that was used last.
        most: clients of the largest population of the run's kind, None for its own.

    Raises:
        UserError: bad data, more devices wanted than there are, or a run that cannot fit.
    """
    small = _like(_kind(config), most or config.data.clients or 0)
    simulation = build(small, kept.load(small))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainers.create([small], simulation, Path(folder))
        trainer.compile()
        programs = fit.program_bytes(trainer.programs)
        trainer.runs[0].close()
    federation = simulation.federation
    clients = config.data.clients or simulation.n_clients
    data, states = fit.client_bytes(simulation)
    found = memory.now_bytes() + federation.mesh.devices.size * programs
    found += int((clients - simulation.n_clients) * data)
    if trainers.place_of_states(small, simulation) == "device":
        return found + (clients - simulation.n_clients) * states
    whole = dataclasses.replace(federation, n_clients=clients, cohort=config.method.cohort)
    whole = dataclasses.replace(simulation, federation=whole)
    return found + trainers.bytes_of_waves(config, whole)


def estimates(runs: Mapping[str, Config], tell: Callable[[str], None]) -> dict[str, Estimate]:
    """An estimate for every run, by name. Runs that differ in their clients share what is timed.

    Args:
        runs: configurations by name.
        tell: hears what is timed.

    Raises:
        UserError: bad data, or a run that cannot fit.
    """
    kept = DatasetCache()
    most = _largest(runs)
    timed: dict[Config, Timed] = {}
    sizes: dict[Config, int] = {}
    by_run = {}
    for name, config in runs.items():
        kind, whole = _kind(config), program_of(config)
        if kind not in timed:
            tell(f"timing rounds like those of {name} (this takes up to a minute)")
            timed[kind] = _time(_like(kind, most[kind]), kept)
        # A process compiles a program once.
        compiling = 0.0 if whole in sizes else timed[kind].compiling
        if whole not in sizes:
            sizes[whole] = memory_of(config, kept, most[kind])
        seconds = seconds_of(config, timed[kind]) + compiling
        by_run[name] = Estimate(seconds, sizes[whole], compiling)
    return by_run


def refuse_what_cannot_fit(runs: Mapping[str, Config], most: float) -> None:
    """Refuse a sweep of which a run takes more than `most` GB.

    Raises:
        UserError: the first such run, what it takes, and what would help.
    """
    kept, largest = DatasetCache(), _largest(runs)
    known: dict[Config, int] = {}
    for name, config in runs.items():
        key = program_of(config)
        if key not in known:
            known[key] = memory_of(config, kept, largest[_kind(config)])
        if known[key] > 1e9 * most:
            raise UserError(
                f"--max_memory={most:g}: {name} takes about {known[key] / 1e9:.1f} GB, expected "
                "fewer clients or items, a smaller --dim, or more memory"
            )


def _largest(runs: Mapping[str, Config]) -> dict[Config, int]:
    """Clients of the largest population of every kind."""
    most: dict[Config, int] = {}
    for config in runs.values():
        most[_kind(config)] = max(most.get(_kind(config), 0), config.data.clients or 0)
    return most


def _kind(config: Config) -> Config:
    """What runs have in common that one population can tell the seconds of."""
    program = program_of(config)
    return dataclasses.replace(
        program,
        data=dataclasses.replace(program.data, clients=config.data.clients and 1),
        # Warm rounds are few, and those that are timed are to be like the others.
        method=dataclasses.replace(program.method, cohort=0, warm_start="none", als_passes=0),
        participation=dataclasses.replace(program.participation, availability_skew=0.0),
        schedule=dataclasses.replace(program.schedule, eval_clients=0),
    )


def _like(kind: Config, most: int) -> Config:
    """A run of a kind, with as many clients as the largest population has, if they are not many."""
    if kind.data.clients is None:
        return kind
    buckets = kind.execution.buckets or (_BUCKETS if most > _CLIENTS else 0)
    return dataclasses.replace(
        kind,
        data=dataclasses.replace(kind.data, clients=min(most, _CLIENTS)),
        execution=dataclasses.replace(kind.execution, buckets=buckets),
    )


def _time(config: Config, kept: DatasetCache) -> Timed:
    begun = time.perf_counter()
    data = kept.load(config)
    data_seconds = time.perf_counter() - begun
    many = _rounds(config, data, whole=True)
    part = dataclasses.replace(config.participation, dropout=_STAY_AWAY)
    few = _rounds(dataclasses.replace(config, participation=part), data, whole=False)
    update = max((many.round - few.round) / max(many.clients - few.clients, 1), 0.0)
    return Timed(
        clients=data.interactions.n_clients,
        data=data_seconds,
        compiling=many.compiling,
        round=max(many.round - update * many.clients, 0.0),
        update=update,
        evaluation=many.evaluation,
        saving=many.saving,
        state=many.state,
    )


@dataclass(frozen=True)
class _Rounds:
    """Rounds in which so many clients trained: seconds of one, and of what is done beside them."""

    clients: float
    round: float
    compiling: float
    evaluation: float = 0.0
    saving: float = 0.0
    state: int = 0


def _rounds(config: Config, data: Dataset, whole: bool) -> _Rounds:
    """Time some rounds, and what is done beside them if `whole`."""

    def seconds(work: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    simulation = build(config, data)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainers.create([config], simulation, Path(folder))
        compiling = seconds(trainer.compile)
        came: list[int] = []
        spent = [
            seconds(lambda: came.append(int(trainer.round().participation.by_length.sum())))
            for _ in range(_ROUNDS)
        ]
        clients, per_round = float(np.mean(came[1:])), statistics.median(spent[1:])
        run = trainer.runs[0]
        if whole:
            run.ranks("test")  # by the same program
            checkpoints = Checkpoints(Path(folder) / record.CHECKPOINTS)
            rounds = _Rounds(
                clients,
                per_round,
                compiling,
                seconds(lambda: run.ranks("valid")),
                seconds(lambda: run.save(checkpoints, Progress(round=1, best_round=1))),
                run.private_bytes,
            )
        else:
            rounds = _Rounds(clients, per_round, compiling)
        run.close()
    return rounds


def seconds_of(config: Config, timed: Timed) -> float:
    """Seconds of a run but for compiling, from those of a population like its own."""
    everybody = config.data.clients or timed.clients
    came = (config.method.cohort or everybody) * (1 - config.participation.dropout)
    share = everybody / timed.clients
    sample = (config.schedule.eval_clients or everybody) / timed.clients
    rounds = config.schedule.rounds
    evaluations = -(-rounds // config.schedule.eval_every)
    work = (
        timed.data * share
        + rounds * (timed.round + timed.update * came)
        # The test split is ranked at the end, and everybody's whole rankings are about as much.
        + (evaluations + 2) * timed.evaluation * sample
    )
    # Small states are written when the time has come, and at the end.
    often = max(config.execution.checkpoint_seconds, 1e-9)
    checkpoints = evaluations
    if share * timed.state <= SMALL:
        checkpoints = min(evaluations, 1 + int(work / often))
    return work + checkpoints * timed.saving * max(share, 1.0)
