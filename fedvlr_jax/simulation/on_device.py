"""Training with every client's private state in the devices' memory: a round is one program.

Several runs can train together: their states are stacked, and the programs mapped over them. On a
machine that one run leaves idle, because it has many cores or an accelerator and the population is
small, they take hardly longer than one. Every run has its own folder with its own checkpoints, as
if it had been alone, and can go on alone.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from jaxtyping import Array, Int

from fedvlr_jax.processes import together
from fedvlr_jax.simulation import programs
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.federated_round import FederationState, Outcome
from fedvlr_jax.simulation.simulation import Simulation, abstract, state_shardings
from fedvlr_jax.simulation.trainer import SMALL, Rankings, Run, ranked, stacked_by_run


class OnDevice:
    """A `Trainer` of one run, or of several: device arrays, donated from round to round."""

    def __init__(self, simulation: Simulation, seeds: Sequence[int]) -> None:
        self._simulation = simulation
        self.programs: Mapping[str, Compiled] = {}
        self._states = simulation.initial_states(seeds)  # stacked by run where there are several
        self._found: dict[str, Any] = {}
        self.runs = tuple(_Run(self, k) for k in range(len(seeds)))
        if len(seeds) == 1:
            self._take, self._put = (lambda states, _: states), (lambda _, state, __: state)
        else:
            self._take, self._put = _moves(simulation, self._states)
        self._of_one = abstract(self.state_of(0))

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """See `Trainer`."""
        settings = programs.settings_of(self._simulation, self._states, before=before)
        self.programs = programs.compiled(settings)

    def round(self) -> Outcome:
        """One call of the compiled round trains all runs."""
        self._found.clear()
        self._states, outcome = self._call("round", self._simulation.rates)
        outcome = jax.block_until_ready((self._states, outcome))[1]
        return self._by_run(outcome)

    @property
    def diverged(self) -> Int[np.ndarray, " runs"]:
        """Every run's first round that was not finite, -1 where there is none."""
        return self._by_run(self._states.diverged)

    @property
    def private_bytes(self) -> int:
        """Bytes of one run's private states, padding rows included."""
        return self._states.private.nbytes // len(self.runs)

    def state_of(self, run: int) -> FederationState:
        """The state of one run, as if it were alone."""
        return self._take(self._states, np.int32(run))

    def let_go(self) -> FederationState:
        """Shapes of one run's state; of a run alone, to make room in memory for another state."""
        if len(self.runs) == 1:
            self._states = self._of_one
        return self._of_one

    def set_state(self, run: int, state: FederationState) -> None:
        """Replace the state of one run."""
        self._found.clear()
        self._states = self._put(self._states, state, np.int32(run))

    def ranks(self, split: str) -> Int[np.ndarray, "runs clients"]:
        """Every run's ranks of a split; found once for all, until a state changes."""
        if split not in self._found:
            target: Array = getattr(self._simulation.population, split)
            ranks = self._by_run(self._call("ranks", target))
            self._found[split] = ranks[:, : self._simulation.n_clients]
        return self._found[split]

    def rankings(self, run: int) -> Rankings:
        """The whole rankings of one run; found once for all."""
        if "rankings" not in self._found:
            self._found["rankings"] = self._by_run(self._call("rankings"))
        tastes, made_of = jax.tree.map(lambda x: x[run], self._found["rankings"])
        return ranked(tastes, made_of, self._simulation.n_clients)

    def _call(self, name: str, *more: Any) -> Any:
        simulation = self._simulation
        return self.programs[name](self._states, simulation.population, simulation.features, *more)

    def _by_run(self, tree: Any) -> Any:
        """On the host, stacked by run."""
        return together.fetched(tree) if len(self.runs) > 1 else stacked_by_run(tree)


class _Run(Run):
    """One of the runs of a trainer, by its number."""

    def __init__(self, trainer: OnDevice, number: int) -> None:
        self._trainer, self._number = trainer, number

    @property
    def state(self) -> FederationState:
        return self._trainer.state_of(self._number)

    @property
    def private_bytes(self) -> int:
        return self._trainer.private_bytes

    @property
    def diverged(self) -> int:
        return int(self._trainer.diverged[self._number])

    @property
    def fits_twice(self) -> bool:
        # Every other run has a copy, too.
        return len(self._trainer.runs) * self.private_bytes <= SMALL

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        return self._trainer.ranks(split)[self._number]

    def rankings(self) -> Rankings:
        return self._trainer.rankings(self._number)

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        checkpoints.save(self.state, progress)

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        state, progress, complaints = checkpoints.latest(self._trainer.let_go())
        self._trainer.set_state(self._number, state)
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        state, _ = checkpoints.load(number, self._trainer.let_go())
        self._trainer.set_state(self._number, state)


def _moves(simulation: Simulation, stacked: FederationState) -> tuple[Callable, Callable]:
    """Programs that take a run's state out of the stacked ones, and that put one in."""

    @functools.partial(jax.jit, out_shardings=state_shardings(simulation.federation.mesh))
    def take(stacked: FederationState, run: Int[Array, ""]) -> FederationState:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, run, keepdims=False), stacked)

    @functools.partial(
        jax.jit,
        out_shardings=jax.tree.map(lambda x: x.sharding, stacked),
        donate_argnums=0,
    )
    def put(
        stacked: FederationState, state: FederationState, run: Int[Array, ""]
    ) -> FederationState:
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_index_in_dim(x, jnp.asarray(y), run, 0),
            stacked,
            state,
        )

    return take, put
