"""What a sweep will take, before it is begun: seconds from a few rounds of a small population.

Memory is counted from shapes; seconds are measured, as they depend on the machine more than on
anything that could be counted.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedvlr_jax.config import Config
from fedvlr_jax.data import Kept
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation import fit, trainers
from fedvlr_jax.simulation.simulation import Simulation, build
from fedvlr_jax.simulation.traced import program_of

_CLIENTS = 1000  # of a population that is timed; beyond it time grows with the clients
_ROUNDS = 3  # that are timed; the first one warms up
_BUCKETS = 4  # that a population gets where it is large


@dataclass(frozen=True)
class Estimate:
    """What a run alone takes, about: seconds from start to end, and bytes of memory at most."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class _Timed:
    """Seconds of a small population: to read and compile, of a round, of an evaluation."""

    start: float
    round: float
    evaluation: float


def memory_of(config: Config, kept: Kept) -> int:
    """Bytes of memory that a run takes at most, about (see `simulation.fit.run_bytes`).

    Args:
        config: of the run.
        kept: the data set that was used last.

    Raises:
        UserError: bad data, or more devices wanted than there are.
    """
    # Synthetic populations have as many clients as they are told to.
    return fit.run_bytes(*_built(_small(config), kept), config.data.clients)


def estimates(runs: Mapping[str, Config], tell: Callable[[str], None]) -> dict[str, Estimate]:
    """An estimate for every run, by name. Runs of one program share what is timed.

    Args:
        runs: configurations by name.
        tell: hears what is timed.

    Raises:
        UserError: bad data, or a run that cannot fit.
    """
    kept = Kept()
    timed: dict[Config, _Timed] = {}
    sizes: dict[Config, int] = {}
    found = {}
    for name, config in runs.items():
        small, whole = _small(config), program_of(config)
        key = program_of(small)
        if key not in timed:
            tell(f"timing {_ROUNDS} rounds like those of {name}")
            timed[key] = _time(small, kept)
        if whole not in sizes:
            sizes[whole] = memory_of(config, kept)
        found[name] = Estimate(_seconds(config, small, timed[key]), sizes[whole])
    return found


def refuse_what_cannot_fit(runs: Mapping[str, Config], most: float) -> None:
    """Refuse a sweep of which a run takes more than `most` GB.

    Raises:
        UserError: the first such run, what it takes, and what would help.
    """
    kept = Kept()
    known: dict[Config, int] = {}
    for name, config in runs.items():
        key = program_of(config)
        if key not in known:
            known[key] = memory_of(config, kept)
        if known[key] > 1e9 * most:
            raise UserError(
                f"--max_memory={most:g}: {name} takes about {known[key] / 1e9:.1f} GB, expected "
                "fewer clients or items, a smaller --dim, or more memory"
            )


def _small(config: Config) -> Config:
    """The run with so few clients that it is timed at once."""
    clients, cohort = config.data.clients, config.method.cohort
    if clients is None or clients <= _CLIENTS:
        return config
    sample = config.schedule.eval_clients
    execution = config.execution
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, clients=_CLIENTS),
        method=dataclasses.replace(config.method, cohort=min(cohort, _CLIENTS)),
        schedule=dataclasses.replace(config.schedule, eval_clients=min(sample, _CLIENTS)),
        execution=dataclasses.replace(execution, buckets=execution.buckets or _BUCKETS),
    )


def _built(config: Config, kept: Kept) -> tuple[Simulation, bool]:
    """The simulation, and whether private states are on the devices."""
    simulation = build(config, kept.load(config))
    return simulation, trainers.place_of_states(config, simulation) == "device"


def _time(config: Config, kept: Kept) -> _Timed:
    begun = time.perf_counter()
    simulation, _ = _built(config, kept)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainers.create([config], simulation, Path(folder))
        trainer.compile()
        start = time.perf_counter() - begun
        rounds, evaluations = [], []
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            trainer.round()
            rounds.append(time.perf_counter() - begun)
        for _ in range(2):
            begun = time.perf_counter()
            trainer.runs[0].ranks("valid")
            evaluations.append(time.perf_counter() - begun)
        trainer.runs[0].close()
    return _Timed(start, min(rounds[1:]), evaluations[-1])


def _seconds(config: Config, small: Config, timed: _Timed) -> float:
    """Rounds, evaluations and checkpoints grow with the clients they are of."""

    def clients(of: Config, sample: int) -> int:
        return sample or of.data.clients or 1

    cohorts = [clients(c, c.method.cohort) for c in (config, small)]
    samples = [clients(c, c.schedule.eval_clients) for c in (config, small)]
    schedule = config.schedule
    evaluations = -(-schedule.rounds // schedule.eval_every)
    return (
        timed.start
        + schedule.rounds * timed.round * cohorts[0] / cohorts[1]
        # The test split is ranked at the end, and everybody's whole rankings are about as much.
        + (evaluations + 2) * timed.evaluation * samples[0] / samples[1]
    )
