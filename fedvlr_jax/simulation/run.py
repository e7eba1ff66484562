"""A whole run: train, evaluate, choose the best round on validation, write what was found."""

import contextlib
import dataclasses
import hashlib
import json
import reprlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedvlr_jax import data as data_sets
from fedvlr_jax import numerics, plugins
from fedvlr_jax.config import Config, check_made, check_population, having
from fedvlr_jax.data import devices
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, PrunedError, UserError
from fedvlr_jax.opened import Run, open_run
from fedvlr_jax.processes import cores, together
from fedvlr_jax.reporter import Muted, Reporter, Silent
from fedvlr_jax.settings import FOLDER, Role, argument
from fedvlr_jax.simulation import environment, fit, folder, keys, loop, memory, results, trainers
from fedvlr_jax.simulation.callbacks import OWN, Callback
from fedvlr_jax.simulation.evaluate import evaluated_clients
from fedvlr_jax.simulation.loop import Running
from fedvlr_jax.simulation.simulation import Simulation, build
from fedvlr_jax.simulation.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """A finished run: the content of `summary.json`, and the folder that holds everything."""

    summary: dict[str, Any]
    out: Path

    @property
    def run(self) -> Run:
        """The run, opened (docs/python.md)."""
        return open_run(self.out)


def default_out(config: Config) -> Path:
    """`runs/<data>-<variant>-seed<seed>-<digest>`.

    The digest is of all settings but the rounds and those that change no result.
    """
    without = ("rounds", *having(Role.LAYOUT))
    flat = {k: v for k, v in config.flat().items() if k not in without}
    if config.data.data != "synthetic":
        flat["data"] = str(Path(config.data.data).resolve())
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:8]
    name = Path(config.data.data).resolve().name
    return Path("runs") / f"{name}-{config.method.variant}-seed{config.schedule.seed}-{digest}"


def train(
    config: Config,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Train a federation, or go on with one, until its last round or until patience runs out.

    Args:
        config: from `Config.of`.
        out: the run's folder; by default one below `runs/` named after the settings. A folder
            that holds an unfinished run of the same configuration is gone on with; a finished one
            is returned as it is.
        reporter: told about progress; silent by default.
        dataset: the data of `config`, if it is loaded already.
        callbacks: hear how the run goes on (`simulation/callbacks.py`), after those of every run.

    Returns:
        The summary (see docs/outputs.md) and the folder.

    Raises:
        UserError: bad settings, data or folder, processes that differ in them, or training that
            diverged.
        Stopped: the reporter wanted to stop.
        PrunedError: a callback ended the run before its last round.
    """
    check_made(config)
    if reporter is not None and (isinstance(reporter, type) or not isinstance(reporter, Reporter)):
        raise UserError(
            f"--reporter={reprlib.repr(reporter)}: expected a fedvlr_jax.reporter.Reporter"
        )
    if dataset is not None and not isinstance(dataset, Dataset):
        raise UserError(
            f"--dataset={reprlib.repr(dataset)}: expected a data set that fedvlr_jax.data.load read"
        )
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UserError(
                f"--callbacks={reprlib.repr(callback)}: expected instances of fedvlr_jax.Callback"
            )
    out = default_out(config) if out is None else argument("out", Path, FOLDER, out)
    datasets = None if dataset is None else [dataset]
    (found,) = train_together([config], [out], [reporter or Silent()], datasets, [callbacks])
    if not isinstance(found, Result):
        raise found
    return found


@numerics.as_written()
def train_together(
    configs: Sequence[Config],
    outs: Sequence[Path],
    reporters: Sequence[Reporter],
    datasets: Sequence[Dataset] | None = None,
    callbacks: Sequence[Sequence[Callback]] | None = None,
) -> list[Result | DivergedError | PrunedError]:
    """Train federations in one program (simulation/on_device.py), each as `train` would.

    Args:
        configs: equal but for what is traced (`simulation.program_of`).
        outs: a folder for each, see `train`.
        reporters: each is told about one run; the first one about the rounds of all.
        datasets: the data of each, if it is loaded already; data that is the same is one object.
        callbacks: of each, hear how it goes on; they may end it before its last round. Then the
            others go on, and its last checkpoint stays.

    Returns:
        For each, in order, its result, or why it diverged or was ended.

    Raises:
        UserError: as in `train`, but for training that diverged; several runs of which one keeps
            private states on the host, or in several processes.
        Stopped: the first reporter wanted to stop.
    """
    start = time.perf_counter()
    memory.reset_peak()
    cores.begin()
    reporters = [reporter if together.is_first() else Muted(reporter) for reporter in reporters]
    together.check_same("settings", json.dumps([[c.flat() for c in configs], *map(str, outs)]))
    for config in configs:
        plugins.load(config.method.plugins or ())  # another process may have made it
    together.check_same("plugins", str([plugins.digest(c.method.plugins or ()) for c in configs]))
    datasets = datasets or data_sets.DatasetCache().load_all(configs)
    pairs = list(zip(configs, datasets, strict=True))
    for config, dataset in pairs:
        check_population(config, dataset.interactions.n_clients, dataset.interactions.n_items)
    for note in datasets[0].notes:
        reporters[0].note(note)
    data_seconds = time.perf_counter() - start
    simulation = build(*pairs[0], pairs[1:])
    for config, dataset in pairs:
        _check_sample(config, dataset, simulation)
    where = {
        "devices": simulation.federation.mesh.devices.size,
        "private_state": trainers.place_of_states(configs[0], simulation),
    }
    # Of a data set that is there several times found once.
    distinct = {id(dataset): dataset for dataset in datasets}
    known = {number: dataset.fingerprint() for number, dataset in distinct.items()}
    fingerprints = [known[id(dataset)] for dataset in datasets]
    together.check_same("data", " ".join(fingerprints))
    found: dict[int, Result | DivergedError | PrunedError] = {}
    resident = where["private_state"] == "device"
    with contextlib.ExitStack() as claims:
        for number, (config, out) in enumerate(zip(configs, outs, strict=True)):
            record = config.flat() | where | {"data_fingerprint": fingerprints[number]}
            record |= {"jax": environment.in_force(config.method.plugins)}
            record |= devices.identity(config.clock.devices_profile)
            notes = claims.enter_context(folder.claimed(out, record))
            summary = folder.finished_summary(out, config.schedule.rounds)
            for note in () if summary else notes:
                reporters[number].note(note)
            if summary is not None:
                reporters[number].note(f"{out}: this run is finished, nothing to do")
                found[number] = Result(summary, out)
        if len(found) < len(configs):
            with fit.explained(simulation.federation, resident):
                trainer = trainers.create(configs, simulation, outs[0])
                runs = [
                    Running(
                        *pairs[k],
                        simulation,
                        k,
                        outs[k],
                        reporters[k],
                        [*(kind() for kind in OWN), *(callbacks[k] if callbacks else ())],
                        start,
                        data_seconds,
                        trainer.runs[k],
                    )
                    for k in range(len(configs))
                    if k not in found
                ]
                _train(trainer, runs, reporters)
                found |= {run.number: _result(run) for run in runs}
    return [found[k] for k in range(len(configs))]


@numerics.as_written()
def check(config: Config, dataset: Dataset) -> None:
    """Refuse before long work what `train` would refuse before its first round.

    Args:
        config: of the run.
        dataset: the data that it names.

    Raises:
        UserError: settings that do not fit the data, the devices or their memory.
    """
    check_population(config, dataset.interactions.n_clients, dataset.interactions.n_items)
    simulation = build(config, dataset)
    _check_sample(config, dataset, simulation)
    trainers.place_of_states(config, simulation)


def _check_sample(config: Config, dataset: Dataset, simulation: Simulation) -> None:
    """Refuse an evaluation sample in which nobody has a validation item."""
    data, size = dataset.interactions, config.schedule.eval_clients
    if not size and (data.valid < 0).all():
        raise UserError(
            f"the data set {dataset.name}: nobody has a validation item, by which the best round "
            "is chosen"
        )
    chosen = evaluated_clients(
        simulation.federation,
        keys.from_seed(config.schedule.seed),
        jnp.arange(data.n_clients),
    )
    if (data.valid[np.asarray(chosen)] < 0).all():
        raise UserError(
            f"--eval_clients={size}: none of the clients sampled with --seed="
            f"{config.schedule.seed} has a validation item, expected a larger sample"
        )


def _train(trainer: Trainer, runs: Sequence[Running], reporters: Sequence[Reporter]) -> None:
    """Train the runs that are left, and go to the best round of each that has not failed."""
    begun = time.perf_counter()
    trainer.compile(lambda: reporters[0].note("compiling (this takes up to a minute)"))
    seconds = time.perf_counter() - begun
    for run in runs:
        if run.goes_on:
            spent = run.progress.compile_seconds + seconds
            run.progress = dataclasses.replace(run.progress, compile_seconds=spent)
    try:
        loop.train(trainer, runs, reporters[0])
    finally:
        for told in reporters:
            told.end()
    for run in runs:
        if run.error is None:
            run.go_to_best()


def _result(run: Running) -> Result | DivergedError | PrunedError:
    if run.error is not None:
        return run.error
    try:
        summary = results.write(run)
    except DivergedError as reason:
        return reason
    run.thin()
    return Result(summary, run.out)
