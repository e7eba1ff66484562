"""Training with every client's private state in the devices' memory: a round is one program."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from fedvlr_jax.processes import together
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.programs import Programs, compiled
from fedvlr_jax.simulation.round import FederationState
from fedvlr_jax.simulation.simulation import Simulation, abstract
from fedvlr_jax.simulation.trainer import Rankings


class OnDevice:
    """A `Trainer` whose state is a tree of device arrays, donated from round to round."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self._simulation = simulation
        self._programs: Programs | None = None
        self.state = simulation.initial_state(seed)

    @property
    def private_bytes(self) -> int:
        """Bytes of all clients' private states, padding rows included."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.private))

    def compile(self) -> None:
        """Compile the round and the two programs of evaluation."""
        self._programs = compiled(self._simulation, self.state)

    def round(self) -> Float[Array, ""]:
        """One call of the compiled round."""
        simulation = self._simulation
        self.state, loss = self._programs.round(
            self.state, simulation.population, simulation.features, simulation.rates
        )
        return jax.block_until_ready((self.state, loss))[1]

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """See `Trainer`."""
        simulation = self._simulation
        target: Array = getattr(simulation.population, split)
        ranks = self._programs.ranks(self.state, simulation.population, simulation.features, target)
        return together.fetched(ranks)[: simulation.n_clients]

    def rankings(self) -> Rankings:
        """See `Trainer`."""
        simulation = self._simulation
        found = self._programs.rankings(self.state, simulation.population, simulation.features)
        tastes, made_of = together.fetched(found)
        # The clients that were evaluated are the ones with view weights, held-out item or not.
        users = np.flatnonzero(np.isfinite(tastes.weights[: simulation.n_clients]).all(axis=1))
        return Rankings(users, *(x[users] for x in tastes), made_of)

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """See `Trainer`."""
        checkpoints.save(self.state, progress)

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """See `Trainer`."""
        self.state, progress, complaints = checkpoints.latest(self._let_go())
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """See `Trainer`."""
        self.state, _ = checkpoints.load(number, self._let_go())

    def close(self) -> None:
        """Nothing to do."""

    def _let_go(self) -> FederationState:
        """Shapes of the state, which makes room in memory for the one that is read."""
        like = abstract(self.state)
        self.state = like
        return like
