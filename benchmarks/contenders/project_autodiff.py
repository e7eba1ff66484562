"""This project's general path: automatic differentiation, and a head of which nothing is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from benchmarks.contenders.project import measured
from benchmarks.stepping import Contender
from benchmarks.workload import World

Result = TypeVar("Result")


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    federation = world.simulation.federation
    training = federation.training
    backbone = replace(training.model.backbone, linear=None)
    training = replace(training, model=replace(training.model, backbone=backbone))
    simulation = replace(world.simulation, federation=replace(federation, training=training))
    return measured(world, simulation, measure)
