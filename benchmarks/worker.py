"""What one process measures: python -m benchmarks.worker JOB RESULT, started by `jobs.run`."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import stepping, targets, workload
from benchmarks.contenders import names
from benchmarks.contenders.project import Project
from benchmarks.jobs import Job
from benchmarks.programs import of_target
from benchmarks.stepping import Contender
from benchmarks.workload import World
from fedvlr_jax.files import write_json
from fedvlr_jax.simulation import memory

_EVALUATIONS = 3


def losses(job: Job) -> dict[str, Any]:
    """The contender's mean training losses of the first rounds."""
    world = _world(job)
    found = _run(job, world, lambda c: stepping.first_losses(c, world.n_clients))
    return {"losses": found}


def throughput(job: Job) -> dict[str, Any]:
    """The contender's measurement."""
    world = _world(job)
    measured = _run(job, world, lambda c: stepping.measure(c, world.n_clients, job.seconds))
    return dataclasses.asdict(measured)


def scaling(job: Job) -> dict[str, Any]:
    """This project's measurement, and the time of ranking the clients' validation items."""
    world = _world(job)

    def measure(contender: Project) -> dict[str, Any]:
        cohort = world.simulation.cohort_size
        found = stepping.measure(contender, cohort, job.seconds)
        trainer = contender.trainer.runs[0]
        ranked = stepping.median_seconds(lambda: trainer.ranks("valid"), job.seconds, _EVALUATIONS)
        return dataclasses.asdict(found) | {
            "eval_seconds": ranked,
            "peak_bytes": memory.peak_bytes(),
            "client_state_bytes": trainer.private_bytes,
        }

    return _run(job, world, measure)


def _world(job: Job) -> World:
    return workload.world(workload.config(**job.settings))


def _run(job: Job, world: World, measure: Callable[[Contender], Any]) -> Any:
    module = names.BY_NAME[job.contender].module
    return importlib.import_module(f"benchmarks.contenders.{module}").run(world, measure)


def programs(job: Job) -> dict[str, Any]:
    """What the compiler of the job's target says of round and evaluation."""
    return {"programs": of_target(targets.parsed(job.target), job.settings, job.seconds)}


TASKS = {task.__name__: task for task in (losses, throughput, scaling, programs)}


def main(job: str, result: str) -> None:
    """Do the job and write what it returns."""
    job = Job(**json.loads(job))
    write_json(Path(result), TASKS[job.task](job))


if __name__ == "__main__":
    main(*sys.argv[1:])
