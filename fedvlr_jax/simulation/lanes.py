"""Several runs that train together: one program, a lane of every array for each run.

On a machine that one run leaves idle, because it has many cores or an accelerator and the
population is small, they take hardly longer than one. Every run has its own folder with its own
checkpoints, as if it had been alone, and can go on alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.programs import Programs, compiled
from fedvlr_jax.simulation.round import FederationState, Outcome
from fedvlr_jax.simulation.simulation import Simulation, abstract, state_shardings
from fedvlr_jax.simulation.trainer import SMALL, Rankings, ranked


class Lanes:
    """A `Trainer` of several runs; their states are stacked on the devices.

    `alone` are the shapes of one run's state.
    """

    def __init__(self, simulation: Simulation, seeds: Sequence[int]) -> None:
        self._simulation = simulation
        self._programs: Programs | None = None
        self._stacked = simulation.initial_states(seeds)
        self._take, self._put = _moves(simulation, self._stacked)
        self._found: dict[str, Any] = {}
        self.alone = abstract(self._take(self._stacked, np.int32(0)))
        self.runs = tuple(_Lane(self, np.int32(k)) for k in range(len(seeds)))

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """Compile the round and the two programs of evaluation."""
        self._programs = compiled(self._simulation, self._stacked, before)

    def round(self) -> Outcome:
        """One call of the compiled round trains all runs."""
        simulation = self._simulation
        self._found.clear()
        self._stacked, outcome = self._programs.round(
            self._stacked, simulation.population, simulation.features, simulation.rates
        )
        return jax.device_get(jax.block_until_ready((self._stacked, outcome))[1])

    @property
    def diverged(self) -> Int[np.ndarray, " runs"]:
        """Every run's first round that was not finite, -1 where there is none."""
        return jax.device_get(self._stacked.diverged)

    @property
    def private_bytes(self) -> int:
        """Bytes of one run's private states."""
        return self._stacked.private.nbytes // len(self.runs)

    def state_of(self, lane: np.int32) -> FederationState:
        """The state of one run, as if it were alone."""
        return self._take(self._stacked, lane)

    def set_state(self, lane: np.int32, state: FederationState) -> None:
        """Replace the state of one run."""
        self._found.clear()
        self._stacked = self._put(self._stacked, state, lane)

    def ranks(self, split: str) -> Int[np.ndarray, "runs clients"]:
        """Every run's ranks of a split; found once for all, until a state changes."""
        if split not in self._found:
            simulation = self._simulation
            target: Array = getattr(simulation.population, split)
            ranks = self._programs.ranks(
                self._stacked, simulation.population, simulation.features, target
            )
            self._found[split] = jax.device_get(ranks)[:, : simulation.n_clients]
        return self._found[split]

    def rankings(self) -> Any:
        """Every run's tastes and compositions, stacked; found once for all."""
        if "rankings" not in self._found:
            simulation = self._simulation
            found = self._programs.rankings(
                self._stacked, simulation.population, simulation.features
            )
            self._found["rankings"] = jax.device_get(found)
        return self._found["rankings"]

    @property
    def n_clients(self) -> int:
        """Number of clients U."""
        return self._simulation.n_clients


class _Lane:
    """A `Run` that trains together with others."""

    def __init__(self, lanes: Lanes, number: np.int32) -> None:
        self._lanes, self._number = lanes, number

    @property
    def state(self) -> FederationState:
        """See `Run`."""
        return self._lanes.state_of(self._number)

    @property
    def private_bytes(self) -> int:
        """Bytes of all clients' private states, padding rows included."""
        return self._lanes.private_bytes

    @property
    def diverged(self) -> int:
        """See `Run`."""
        return int(self._lanes.diverged[self._number])

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """See `Run`."""
        return self._lanes.ranks(split)[self._number]

    def rankings(self) -> Rankings:
        """See `Run`."""
        tastes, made_of = jax.tree.map(lambda x: x[self._number], self._lanes.rankings())
        return ranked(tastes, made_of, self._lanes.n_clients)

    @property
    def fits_twice(self) -> bool:
        """See `Run`; every other run has a copy, too."""
        return len(self._lanes.runs) * self.private_bytes <= SMALL

    def copy(self) -> FederationState:
        """See `Run`."""
        return self.state

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """See `Run`."""
        checkpoints.save(self.state, progress)

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """See `Run`."""
        state, progress, complaints = checkpoints.latest(self._lanes.alone)
        self._lanes.set_state(self._number, state)
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """See `Run`."""
        state, _ = checkpoints.load(number, self._lanes.alone)
        self._lanes.set_state(self._number, state)

    def close(self) -> None:
        """Nothing to do."""


def _moves(simulation: Simulation, stacked: FederationState) -> tuple[Any, Any]:
    """Programs that take a run's state out of the stacked ones, and that put one in."""

    @functools.partial(jax.jit, out_shardings=state_shardings(simulation.federation.mesh))
    def take(stacked: FederationState, lane: Int[Array, ""]) -> FederationState:
        return jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, lane, keepdims=False), stacked
        )

    together = jax.tree.map(lambda x: x.sharding, stacked)

    @functools.partial(jax.jit, out_shardings=together, donate_argnums=0)
    def put(
        stacked: FederationState, state: FederationState, lane: Int[Array, ""]
    ) -> FederationState:
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_index_in_dim(x, jnp.asarray(y), lane, 0),
            stacked,
            state,
        )

    return take, put
