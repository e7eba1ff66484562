"""This project: a round as `fedvlr_jax.train` trains it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from benchmarks.stepping import Contender
from benchmarks.workload import World
from fedvlr_jax.simulation import trainers
from fedvlr_jax.simulation.simulation import Simulation
from fedvlr_jax.simulation.trainer import Trainer

Result = TypeVar("Result")


class Project(Contender):
    """The library's trainer; it draws its own negatives."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def compile(self) -> None:
        """Compile the round, and the two programs of evaluation with it, as a run does."""
        self.trainer.compile()

    def prepare(self, number: int) -> None:
        """Nothing to take."""

    def round(self, clients: int) -> float:  # noqa: ARG002 - always the whole cohort
        """One round of everybody."""
        with jax.transfer_guard("disallow"):
            outcome = self.trainer.round()
        return float(outcome.loss[0])


def measured(world: World, simulation: Simulation, measure: Callable[[Project], Result]) -> Result:
    """Measure the world's trainer for a simulation."""
    with tempfile.TemporaryDirectory() as folder:
        contender = Project(trainers.create([world.config], simulation, Path(folder)))
        found = measure(contender)
        contender.trainer.runs[0].close()
    return found


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measured(world, world.simulation, measure)
