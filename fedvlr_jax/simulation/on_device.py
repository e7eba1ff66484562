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
    """A `Trainer` of one run, or of several: device arrays, donated from round to round.

    Attributes:
        runs: in order.
        programs: what is compiled, by name.
        states: of the runs, stacked where there are several.
    """

    def __init__(self, simulation: Simulation, seeds: Sequence[int]) -> None:
        self.simulation = simulation
        self.programs: Mapping[str, Compiled] = {}
        self.states = simulation.initial_states(seeds)
        self._found: dict[tuple[str, ...], Any] = {}
        if len(seeds) == 1:
            self.take, self.put = (lambda states, _: states), (lambda _, state, __: state)
        else:
            self.take, self.put = _moves(simulation, self.states)
        of_one = abstract(self.take(self.states, np.int32(0)))
        self.runs = tuple(_Run(self, k, of_one) for k in range(len(seeds)))

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """See `Trainer`."""
        settings = programs.settings_of(self.simulation, self.states, before=before)
        self.programs = programs.compiled(settings)

    def round(self) -> Outcome:
        """One call of the compiled round trains all runs."""
        self._found.clear()
        self.states, outcome = self._call("round")
        return self.by_run(jax.block_until_ready((self.states, outcome))[1])

    def replace(self, states: FederationState) -> None:
        """Take other states than those that training has come to."""
        self._found.clear()
        self.states = states

    def found(self, name: str, *splits: str) -> Any:
        """What a program of evaluation finds in all runs; called once until a state changes."""
        if (name, *splits) not in self._found:
            targets = (getattr(self.simulation.population, split) for split in splits)
            self._found[name, *splits] = self.by_run(self._call(name, *targets))
        return self._found[name, *splits]

    def by_run(self, tree: Any) -> Any:
        """On the host, stacked by run."""
        return together.fetched(tree) if len(self.runs) > 1 else stacked_by_run(tree)

    def _call(self, name: str, *more: Any) -> Any:
        of = self.simulation
        return self.programs[name](self.states, of.population, of.features, of.rates, *more)


class _Run(Run):
    """One of the runs of a trainer, by its number; `like` are the shapes of its state."""

    def __init__(self, trainer: OnDevice, number: int, like: FederationState) -> None:
        self._trainer, self._number, self._like = trainer, number, like

    @property
    def state(self) -> FederationState:
        return self._trainer.take(self._trainer.states, np.int32(self._number))

    @state.setter
    def state(self, state: FederationState) -> None:
        trainer = self._trainer
        trainer.replace(trainer.put(trainer.states, state, np.int32(self._number)))

    @property
    def private_bytes(self) -> int:
        return self._trainer.states.private.nbytes // len(self._trainer.runs)

    @property
    def diverged(self) -> int:
        return int(self._trainer.by_run(self._trainer.states.diverged)[self._number])

    @property
    def fits_twice(self) -> bool:
        # Every other run has a copy, too.
        return len(self._trainer.runs) * self.private_bytes <= SMALL

    def copy(self) -> FederationState:
        # What is taken out of several states is a copy already.
        return super().copy() if len(self._trainer.runs) == 1 else self.state

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        found = self._trainer.found("ranks", split)[self._number]
        return found[: self._trainer.simulation.n_clients]

    def rankings(self) -> Rankings:
        tastes, made_of = jax.tree.map(lambda x: x[self._number], self._trainer.found("rankings"))
        return ranked(tastes, made_of, self._trainer.simulation.n_clients)

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        checkpoints.save(self.state, progress)

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        self._make_room()
        self.state, progress, complaints = checkpoints.latest(self._like)
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        self._make_room()
        self.state, _ = checkpoints.load(number, self._like)

    def _make_room(self) -> None:
        """Let go of the state of a run alone, in whose place another one will be read."""
        if len(self._trainer.runs) == 1:
            self._trainer.replace(self._like)


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
