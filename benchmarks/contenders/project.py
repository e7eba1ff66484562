"""This project: the compiled round, called as `fedvlr_jax.train` calls it."""

import jax
from jaxtyping import Array, Int

from benchmarks import stepping
from benchmarks.stepping import Measurement
from benchmarks.workload import World
from fedvlr_jax.simulation.simulation import compiled


class Project:
    """The round program of the library; it draws its own negatives."""

    serial = False

    def __init__(self, world: World) -> None:
        self._simulation, self._state = world.simulation, world.state

    def compile(self) -> None:
        """Compile the round, and the two programs of evaluation with it, as a run does."""
        self._programs = compiled(self._simulation, self._state)

    def hand_over(self, negatives: Int[Array, "epochs clients drawn"]) -> None:
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


def measure(world: World, seconds: float) -> Measurement:
    """Time it in this process."""
    return stepping.measure(Project(world), world, seconds)
