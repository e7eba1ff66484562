"""Round and evaluation compiled for a target: what the compiler says, what a device here takes."""

import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.stages import Compiled

from benchmarks import hlo, targets, workload
from benchmarks.stepping import median_seconds
from fedvlr_jax import data, numerics
from fedvlr_jax.simulation import mesh, programs
from fedvlr_jax.simulation.simulation import Simulation, build

_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-pjrt", "jax-cuda13-pjrt")
_MOST_CALLS = 20


@numerics.as_written()
def of_target(target: targets.Target, settings: dict[str, Any], seconds: float) -> list[dict]:
    """What is known of each program.

    Args:
        target: what to compile for.
        settings: of the workload, as `workload.config` takes them.
        seconds: for calls of each program, where the devices are here.
    """
    devices, here = targets.devices(target)
    config = workload.config(**settings)
    simulation = build(config, data.load(config), mesh=mesh.over(devices))
    lowered = programs.lowered(programs.settings_of(simulation, simulation.state_shapes()))
    found, compiled = [], {}
    for name, lowered_name in (("round", "round"), ("evaluation", "ranks")):
        begun = time.perf_counter()
        compiled[name] = lowered[lowered_name].compile()
        spent = time.perf_counter() - begun
        found.append(
            {
                "target": target.name,
                "program": name,
                "device": devices[0].device_kind,
                "devices": len(devices),
                "packages": _versions(),
                "compile_seconds": spent,
                **_said(simulation, compiled[name], name),
                "seconds": None,
            }
        )
    if here:
        for program, call in zip(found, _calls(simulation, compiled), strict=True):
            program["seconds"] = median_seconds(call, seconds, _MOST_CALLS)
    return found


def _said(simulation: Simulation, compiled: Compiled, name: str) -> dict[str, Any]:
    """What the compiler says of one program, per device."""
    federation = simulation.federation
    n_devices = mesh.blocks(federation.mesh)
    buckets = federation.buckets if name == "round" else federation.evaluation_buckets
    chunk = buckets[-1].chunk
    clients = -(-simulation.n_clients // n_devices)
    private = jax.tree.leaves(simulation.state_shapes().private)
    memory = compiled.memory_analysis()
    program = hlo.parsed(compiled.as_text(), trips=-(-clients // chunk))
    unknown: Counter[str] = Counter()
    for run in program.without_estimate:
        unknown[program.name(run.operation)] += run.times
    return {
        "clients": simulation.n_clients,
        "items": federation.n_items,
        "chunk": chunk,
        "negative_sampling": "expected" if federation.training.expected else "uniform",
        "scoring": "dense" if federation.training.dense else "sparse",
        "precision": federation.precision,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "private_state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in private)
        // n_devices,
        "private_state_copies": len(program.moves({leaf.size // n_devices for leaf in private})),
        "collectives": program.collectives,
        "cycles": program.cycles,
        "cycles_per_client_update": program.cycles and program.cycles / clients,
        "operations_without_estimate": [
            {"operation": operation, "times": times} for operation, times in unknown.most_common()
        ],
        "gathers_and_scatters_without_estimate": sum(
            times for text, times in unknown.items() if text.split()[0] in ("gather", "scatter")
        ),
    }


def _calls(simulation: Simulation, compiled: dict[str, Compiled]) -> list[Callable[[], None]]:
    """A call of each compiled program, until it has been done."""
    given = simulation.population, simulation.features, simulation.rates
    state = simulation.initial_state(0)

    def train() -> None:
        nonlocal state
        state, _ = compiled["round"](state, *given)
        jax.block_until_ready(state)

    def evaluate() -> None:
        target = simulation.population.valid
        jax.block_until_ready(compiled["evaluation"](state, *given, target))

    return [train, evaluate]


def _versions() -> dict[str, str]:
    """Versions of JAX and of the compilers that come with it."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
