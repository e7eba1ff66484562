"""What training is asked for: the next round of one or several runs, and what each run has found.

A `Trainer` moves all its runs on by a round; a `Run` is evaluated, saved and taken up by itself.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from jaxtyping import Float, Int

from fedvlr_jax.processes import together
from fedvlr_jax.server import alternating
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.evaluate import Tastes
from fedvlr_jax.simulation.federated_round import FederationState, Outcome

# Bytes of private states that memory may hold twice.
SMALL = 100_000_000


class Rankings(NamedTuple):
    """The evaluated clients with what each gets to see and looks at, and what views are made of.

    `top` are items, best first, -1 where there are fewer; `weights` the view weights, `reliance`
    the shares of `MODALITIES` in the client's scores (client/reliance.py), `composition` those in
    each view (fusion/composition.py).
    """

    users: Int[np.ndarray, " evaluated"]
    top: Int[np.ndarray, "evaluated top"]
    weights: Float[np.ndarray, "evaluated views"]
    reliance: Float[np.ndarray, "evaluated modalities"]
    composition: Float[np.ndarray, "views modalities"]


def stacked_by_run(tree: Any) -> Any:
    """What a run alone has found, on the host, with an axis of runs."""
    return jax.tree.map(lambda x: x[None], together.fetched(tree))


def ranked(
    tastes: Tastes, composition: Float[np.ndarray, "views modalities"], n_clients: int
) -> Rankings:
    """Those of the evaluated ones among `n_clients`, of everybody's tastes on the host."""
    # The clients that were evaluated are the ones with view weights, held-out item or not.
    users = np.flatnonzero(np.isfinite(tastes.weights[:n_clients]).all(axis=1))
    return Rankings(users, *(x[users] for x in tastes), composition)


class Run(abc.ABC):
    """One run in training: everything that changes from round to round.

    Attributes:
        state: the state now; `private` is None where the devices do not hold it.
    """

    state: FederationState

    @property
    @abc.abstractmethod
    def diverged(self) -> int:
        """The first round whose loss or parameters were not finite, -1 while there is none."""

    @property
    @abc.abstractmethod
    def private_bytes(self) -> int:
        """Bytes of all private states that are held."""

    @property
    @abc.abstractmethod
    def fits_twice(self) -> bool:
        """Whether memory may well hold a `copy`."""

    def copy(self) -> FederationState:
        """The state now, which training does not change."""
        return jax.tree.map(jnp.copy, self.state)

    def undo_passes(self) -> None:
        """Go back to the spectral start from what alternating passes have made of it."""
        before = self.state.server
        shardings = jax.tree.map(lambda x: x.sharding, before)
        server = jax.jit(alternating.undone, out_shardings=shardings)(before)
        self.state = self.state._replace(server=server)

    @abc.abstractmethod
    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """Rank of every evaluated client's held-out item of a split, -1 for all others.

        `evaluate.NOT_FINITE` where a client's scores are not finite.
        """

    @abc.abstractmethod
    def rankings(self) -> Rankings:
        """Whole rankings of the evaluated clients."""

    @abc.abstractmethod
    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """Write a checkpoint."""

    @abc.abstractmethod
    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """Go on from the newest checkpoint that can be read; sentences about damaged ones.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """

    @abc.abstractmethod
    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """Take the state of an earlier round.

        Raises:
            DamagedError: its checkpoint cannot be read.
        """

    def close(self) -> None:
        """Let go of what is not needed after the run."""
        return


@runtime_checkable
class Trainer(Protocol):
    """One run, or several of one program, in training."""

    @property
    def runs(self) -> Sequence[Run]:
        """The runs, in order."""

    @property
    def programs(self) -> Mapping[str, Compiled]:
        """What is compiled, by name."""

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """Compile every program of the runs; `before` is called if there is something to do."""

    def round(self) -> Outcome:
        """Train every run's next cohort and step its server; outcomes stacked by run, on the host.

        It returns when everything is done.
        """
