"""Training with every client's private state in the devices' memory: a round is one program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedvlr_jax.processes import together
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.programs import Programs, compiled
from fedvlr_jax.simulation.round import FederationState, Outcome
from fedvlr_jax.simulation.simulation import Simulation, abstract
from fedvlr_jax.simulation.trainer import SMALL, Alone, Rankings, alone, ranked


class OnDevice(Alone):
    """A `Trainer` and its only `Run`: device arrays, donated from round to round."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self._simulation = simulation
        self._programs: Programs | None = None
        self.state = simulation.initial_state(seed)

    @property
    def private_bytes(self) -> int:
        """Bytes of all clients' private states, padding rows included."""
        return self.state.private.nbytes

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """Compile the round and the two programs of evaluation."""
        self._programs = compiled(self._simulation, self.state, before)

    def round(self) -> Outcome:
        """One call of the compiled round."""
        simulation = self._simulation
        self.state, outcome = self._programs.round(
            self.state, simulation.population, simulation.features, simulation.rates
        )
        return alone(jax.block_until_ready((self.state, outcome))[1])

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """See `Run`."""
        simulation = self._simulation
        target: Array = getattr(simulation.population, split)
        ranks = self._programs.ranks(self.state, simulation.population, simulation.features, target)
        return together.fetched(ranks)[: simulation.n_clients]

    def rankings(self) -> Rankings:
        """See `Run`."""
        simulation = self._simulation
        found = self._programs.rankings(self.state, simulation.population, simulation.features)
        tastes, made_of = together.fetched(found)
        return ranked(tastes, made_of, simulation.n_clients)

    @property
    def fits_twice(self) -> bool:
        """See `Run`."""
        return self.private_bytes <= SMALL

    def copy(self) -> FederationState:
        """See `Run`."""
        return jax.tree.map(jnp.copy, self.state)

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """See `Run`."""
        checkpoints.save(self.state, progress)

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """See `Run`."""
        self.state, progress, complaints = checkpoints.latest(self._let_go())
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """See `Run`."""
        self.state, _ = checkpoints.load(number, self._let_go())

    def close(self) -> None:
        """Nothing to do."""

    def _let_go(self) -> FederationState:
        """Shapes of the state, which makes room in memory for the one that is read."""
        like = abstract(self.state)
        self.state = like
        return like
