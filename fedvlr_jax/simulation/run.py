"""A whole run: train, evaluate, choose the best round on validation, write what was found."""

import contextlib
import dataclasses
import hashlib
import json
import reprlib
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedvlr_jax import data as data_sets
from fedvlr_jax import numerics, plugins
from fedvlr_jax.config import Config, check_made, check_population, having
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, PrunedError, Stopped, UserError
from fedvlr_jax.processes import cores, together
from fedvlr_jax.reporter import Muted, Reporter, Silent
from fedvlr_jax.settings import FOLDER, Role, argument
from fedvlr_jax.simulation import environment, fit, folder, keys, memory, results, trainers
from fedvlr_jax.simulation.checkpoint import Done
from fedvlr_jax.simulation.course import Course, Prune
from fedvlr_jax.simulation.evaluate import evaluated_clients
from fedvlr_jax.simulation.round import Outcome
from fedvlr_jax.simulation.saving import Saver
from fedvlr_jax.simulation.simulation import Simulation, build


@dataclass(frozen=True)
class Result:
    """A finished run: the content of `summary.json`, and the folder that holds everything."""

    summary: dict[str, Any]
    out: Path


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
) -> Result:
    """Train a federation, or go on with one, until its last round or until patience runs out.

    Args:
        config: from `Config.of`.
        out: the run's folder; by default one below `runs/` named after the settings. A folder
            that holds an unfinished run of the same configuration is gone on with; a finished one
            is returned as it is.
        reporter: told about progress; silent by default.
        dataset: the data of `config`, if it is loaded already.

    Returns:
        The summary (see docs/outputs.md) and the folder.

    Raises:
        UserError: bad settings, data or folder, processes that differ in them, or training that
            diverged.
        Stopped: the reporter wanted to stop.
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
    out = default_out(config) if out is None else argument("out", Path, FOLDER, out)
    datasets = None if dataset is None else [dataset]
    (found,) = train_together([config], [out], [reporter or Silent()], datasets)
    if not isinstance(found, Result):
        raise found
    return found


@numerics.as_written()
def train_together(
    configs: Sequence[Config],
    outs: Sequence[Path],
    reporters: Sequence[Reporter],
    datasets: Sequence[Dataset] | None = None,
    prune: Sequence[Prune | None] | None = None,
) -> list[Result | DivergedError | PrunedError]:
    """Train federations in one program (simulation/lanes.py), each as `train` would.

    Args:
        configs: equal but for what is traced (`simulation.program_of`).
        outs: a folder for each, see `train`.
        reporters: each is told about one run; the first one about the rounds of all.
        datasets: the data of each, if it is loaded already; data that is the same is one object.
        prune: for each, what hears its evaluations and may end it before its last round; the
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
    datasets = datasets or data_sets.Kept().load_all(configs)
    pairs = list(zip(configs, datasets, strict=True))
    for config, dataset in pairs:
        check_population(config, dataset.interactions.n_clients)
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
    fingerprints = _fingerprints(datasets)
    together.check_same("data", " ".join(fingerprints))
    found: dict[int, Result | DivergedError | PrunedError] = {}
    resident = where["private_state"] == "device"
    with contextlib.ExitStack() as claims:
        for number, (config, out) in enumerate(zip(configs, outs, strict=True)):
            record = config.flat() | where | {"data_fingerprint": fingerprints[number]}
            record |= {"jax": environment.in_force(config.method.plugins)}
            notes = claims.enter_context(folder.claimed(out, record))
            summary = folder.finished_summary(out, config.schedule.rounds)
            for note in () if summary else notes:
                reporters[number].note(note)
            if summary is not None:
                reporters[number].note(f"{out}: this run is finished, nothing to do")
                found[number] = Result(summary, out)
        if len(found) < len(configs):
            runs = [
                Course(*pair, simulation, *own, start, data_seconds, judge)
                for pair, *own, judge in zip(
                    pairs, outs, reporters, prune or [None] * len(pairs), strict=True
                )
            ]
            with fit.explained(simulation.federation, resident):
                found |= _trained(runs, set(found))
    return [found[k] for k in range(len(configs))]


def _fingerprints(datasets: Sequence[Dataset]) -> list[str]:
    """Of every data set, in order; of one that is there several times found once."""
    found: dict[int, str] = {}
    for dataset in datasets:
        if id(dataset) not in found:
            found[id(dataset)] = dataset.fingerprint()
    return [found[id(dataset)] for dataset in datasets]


@numerics.as_written()
def check(config: Config, dataset: Dataset) -> None:
    """Refuse before long work what `train` would refuse before its first round.

    Args:
        config: of the run.
        dataset: the data that it names.

    Raises:
        UserError: settings that do not fit the data, the devices or their memory.
    """
    check_population(config, dataset.interactions.n_clients)
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
        simulation.evaluation,
        keys.from_seed(config.schedule.seed),
        jnp.arange(data.n_clients),
    )
    if (data.valid[np.asarray(chosen)] < 0).all():
        raise UserError(
            f"--eval_clients={size}: none of the clients sampled with --seed="
            f"{config.schedule.seed} has a validation item, expected a larger sample"
        )


def _done(outcome: Outcome, run: int, seconds: float) -> Done:
    """A round of one of the runs that it is the outcome of."""
    came = outcome.came
    return Done(
        seconds,
        float(outcome.loss[run]),
        came.by_length[run],
        int(came.late[run]),
        int(came.by_length.sum()),
    )


def _trained(
    runs: Sequence[Course], done: Set[int]
) -> dict[int, Result | DivergedError | PrunedError]:
    """Rounds, evaluations and checkpoints to the end; then every run's results at its best round.

    Runs that are `done`, that have stopped, diverged or were pruned stay in the program until the
    last one is done: so what a run comes to does not depend on when the others ended.
    """
    trainer = trainers.create([run.config for run in runs], runs[0].simulation, runs[0].out)
    states, reporter = trainer.runs, runs[0].reporter
    progress = {k: run.resume(states[k]) for k, run in enumerate(runs) if k not in done}
    given_up: dict[int, DivergedError | PrunedError] = {}
    before = {k: p.total_seconds for k, p in progress.items()}
    begun = time.perf_counter()
    trainer.compile(lambda: reporter.note("compiling (this takes up to a minute)"))
    compile_seconds = time.perf_counter() - begun

    def active() -> list[int]:
        return [k for k, p in progress.items() if k not in given_up and runs[k].goes_on(p)]

    for k in active():
        seconds = progress[k].compile_seconds + compile_seconds
        progress[k] = dataclasses.replace(progress[k], compile_seconds=seconds)
    seconds = runs[0].config.execution.checkpoint_seconds
    savers = {k: Saver(states[k], runs[k].checkpoints, seconds) for k in progress}
    shown = min(progress)  # the run whose rounds are told
    reporter.begin(progress[shown].round, runs[shown].config.schedule.rounds, "round")
    since: dict[int, list[Done]] = {k: [] for k in progress}  # rounds since the last evaluation

    for k in active():  # a kill may have come between the last evaluation and its judgement
        if (reason := runs[k].pruned(progress[k])) is not None:
            given_up[k] = reason

    def end() -> None:
        for run in runs:
            run.reporter.end()

    def stops() -> bool:
        return together.any_says(reporter.wants_stop)

    while ahead := active():
        left = min(runs[k].until_evaluation(progress[k], len(since[k])) for k in ahead)
        # Up to the next evaluation nothing moves between host and device unless it is meant.
        with jax.transfer_guard("disallow"):
            for _ in range(left):
                begun = time.perf_counter()
                outcome = trainer.round()
                took = time.perf_counter() - begun
                for k in ahead:
                    since[k].append(_done(outcome, k, took))
                reporter.advance(progress[shown].round + len(since[shown]))
                if stops():
                    break
        for k in ahead:
            run = runs[k]
            if run.until_evaluation(progress[k], len(since[k])):
                continue
            try:
                if (bad := states[k].diverged) >= 0:
                    raise run.divergence(bad)
                found = run.evaluated(states[k], progress[k], since[k])
            except DivergedError as reason:
                savers[k].rescue()
                given_up[k] = reason
                continue
            elapsed = time.perf_counter() - run.start
            progress[k] = dataclasses.replace(found, total_seconds=before[k] + elapsed)
            since[k] = []
            savers[k].evaluated(progress[k], last=not run.goes_on(progress[k]))
            run.tell(progress[k])
            if (reason := run.pruned(progress[k])) is not None:
                given_up[k] = reason
        if stops():
            for k in set(active()) & set(ahead):
                elapsed = before[k] + time.perf_counter() - runs[k].start
                savers[k].pause(progress[k], since[k], elapsed)
            end()
            raise Stopped(f"stopped after round {progress[shown].round + len(since[shown])}")
    end()
    ended = [k for k in progress if k not in given_up]
    for k in ended:
        runs[k].go_to_best(states[k], progress[k])
    finished = {}
    for k in ended:
        try:
            summary = results.write(runs[k], states[k], progress[k])
        except DivergedError as reason:
            given_up[k] = reason
            continue
        finished[k] = Result(summary, runs[k].out)
        runs[k].thin(progress[k])
    return given_up | finished
