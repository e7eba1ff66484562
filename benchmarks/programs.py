"""Round and evaluation compiled for a target, and what its compiler says of them."""

import importlib.metadata
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.stages import Compiled

from benchmarks import hlo, targets, workload
from benchmarks.jobs import Job
from fedvlr_jax import data, numerics
from fedvlr_jax.simulation import mesh, programs
from fedvlr_jax.simulation.simulation import Simulation, build

_COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-pjrt", "jax-cuda13-pjrt")
_MOST_ROUNDS = 20


@numerics.as_written()
def compile_for_target(job: Job) -> dict[str, Any]:
    """What the compiler of the job's target says of each program, and where they were run."""
    target = targets.parsed(job.target)
    devices, here = targets.devices(target)
    config = workload.config(**job.settings)
    simulation = build(config, data.load(config), mesh=mesh.over(devices))
    lowered = programs.lowered(programs.settings_of(simulation, simulation.state_shapes()))
    found, compiled = [], {}
    for name, stage in (("round", lowered["round"]), ("evaluation", lowered["ranks"])):
        begun = time.perf_counter()
        compiled[name] = stage.compile()
        seconds = time.perf_counter() - begun
        said = _said(compiled[name], simulation, name)
        found.append({"target": job.target, "program": name, "compile_seconds": seconds} | said)
    if here:
        for program, seconds in zip(found, _timed(simulation, compiled, job), strict=True):
            program["seconds"] = seconds
    return {"programs": found}


def _said(compiled: Compiled, simulation: Simulation, name: str) -> dict[str, Any]:
    """What a compiler says of one program."""
    n_devices = mesh.blocks(simulation.federation.mesh)
    static = simulation.federation if name == "round" else simulation.evaluation
    chunk = static.buckets[-1].chunk
    clients = -(-simulation.n_clients // n_devices)
    private = jax.tree.leaves(simulation.state_shapes().private)
    sizes = frozenset(leaf.size // n_devices for leaf in private if leaf.ndim > 1)
    memory = compiled.memory_analysis()
    program = hlo.parsed(compiled.as_text(), trips=-(-clients // chunk))
    cycles = program.cycles
    unknown: dict[str, int] = {}
    for run in program.without_estimate:
        called = program.name(run.operation)
        unknown[called] = unknown.get(called, 0) + run.times
    return {
        "devices": n_devices,
        "clients": simulation.n_clients,
        "items": simulation.federation.n_items,
        "chunk": chunk,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "private_state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in private)
        // n_devices,
        "private_state_copies": len(program.moves(sizes)),
        "collectives": program.collectives,
        "cycles": cycles,
        "cycles_per_client_update": cycles and cycles / clients,
        "operations_without_estimate": [] if cycles is None else sorted(unknown.items()),
        "compilers": _versions(),
    }


def _timed(simulation: Simulation, compiled: dict[str, Compiled], job: Job) -> list[float]:
    """Median wall seconds of a round and of an evaluation."""
    population, features = simulation.population, simulation.features
    state = simulation.initial_state(0)

    def train() -> None:
        nonlocal state
        state, _ = compiled["round"](state, population, features, simulation.rates)
        jax.block_until_ready(state)

    def evaluate() -> None:
        jax.block_until_ready(compiled["evaluation"](state, population, features, population.valid))

    return [_median(train, job.seconds), _median(evaluate, job.seconds)]


def _median(work: Callable[[], None], seconds: float) -> float:
    """Median wall seconds of `work`, done for about `seconds` after a warm-up."""
    work()
    spent: list[float] = []
    while not spent or (len(spent) < _MOST_ROUNDS and sum(spent) < seconds):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def _versions() -> dict[str, str]:
    found = {}
    for name in _COMPILERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
