"""This project: the compiled round, called as `fedvlr_jax.train` calls it."""

from collections.abc import Callable
from typing import TypeVar

import jax

from benchmarks.stepping import Contender
from benchmarks.workload import World
from fedvlr_jax.simulation.simulation import Simulation, compiled

Result = TypeVar("Result")


class Project(Contender):
    """The round program of the library; it draws its own negatives."""

    def __init__(self, world: World, simulation: Simulation) -> None:
        self._simulation, self._state = simulation, world.initial_state()

    def compile(self) -> None:
        """Compile the round, and the two programs of evaluation with it, as a run does."""
        self._programs = compiled(self._simulation, self._state)

    def prepare(self, number: int) -> None:
        """Nothing to take."""

    def round(self, clients: int) -> float:  # noqa: ARG002 - always the whole cohort
        """One round of everybody."""
        simulation = self._simulation
        with jax.transfer_guard("disallow"):
            self._state, loss = self._programs.round(
                self._state, simulation.population, simulation.features, simulation.rates
            )
            jax.block_until_ready((self._state, loss))
        return float(jax.device_get(loss))


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(Project(world, world.simulation))
