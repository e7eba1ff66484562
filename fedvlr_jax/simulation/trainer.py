"""What a run asks of whoever trains: one round, ranks and rankings, a checkpoint and back."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int

from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.round import FederationState


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


@runtime_checkable
class Trainer(Protocol):
    """A federation in training: everything that changes from round to round."""

    @property
    def state(self) -> FederationState:
        """The state now; `private` is None where the devices do not hold it."""

    @property
    def private_bytes(self) -> int:
        """Bytes of all private states that are held."""

    def compile(self) -> None:
        """Compile every program of the run."""

    def round(self) -> Float[Array, ""]:
        """Train the next cohort and step the server; the cohort's mean loss, when it is ready."""

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """Rank of every evaluated client's held-out item of a split, -1 for all others."""

    def rankings(self) -> Rankings:
        """Whole rankings of the evaluated clients."""

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """Write a checkpoint."""

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """Go on from the newest checkpoint that can be read; sentences about damaged ones.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """Take the state of an earlier round.

        Raises:
            DamagedError: its checkpoint cannot be read.
        """

    def close(self) -> None:
        """Let go of what is not needed after the run."""
