"""The best round of a finished run, read from its checkpoint."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedvlr_jax import numerics, record
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.errors import UserError
from fedvlr_jax.protocol import Broadcast
from fedvlr_jax.simulation import evaluate, keys
from fedvlr_jax.simulation.checkpoint import Checkpoints, DamagedError
from fedvlr_jax.simulation.federated_round import (
    Federation,
    FederationState,
    sent_by,
)
from fedvlr_jax.simulation.mesh import everywhere
from fedvlr_jax.simulation.off_device import store
from fedvlr_jax.simulation.population import Population
from fedvlr_jax.simulation.private import Private, beginnings
from fedvlr_jax.simulation.simulation import Simulation, abstract


def shared_state(simulation: Simulation, run: Path) -> FederationState:
    """The state of a run's best round, without private states.

    Args:
        simulation: with the run's server, of any clients.
        run: its folder.

    Raises:
        UserError: the checkpoint is damaged, or was not kept.
    """
    mesh = simulation.federation.mesh
    return _load(run, abstract(simulation.shared_shapes, everywhere(mesh)))


def private_rows(simulation: Simulation, run: Path) -> Float[np.ndarray, "clients numbers"]:
    """All clients' private states (client/flat.py) at the best round, as the devices had them.

    Raises:
        UserError: as in `shared_state`.
    """
    rows = _load(run, simulation.state_shapes()).private
    return jax.device_get(rows)[: simulation.n_clients]


def private_row_on_host(
    simulation: Simulation, run: Path, state: FederationState, client: int
) -> Float[np.ndarray, " numbers"]:
    """As `private_rows`, of one client of a run that kept private states on the host.

    One that had not taken part by the best round is where all clients begin.
    """
    step = Checkpoints(run / record.CHECKPOINTS).step(_best(run))
    row = store.newest(step / record.PRIVATE, client)
    if row is not None:
        return row
    model = simulation.federation.training.model
    return jax.device_get(_beginnings(model, state.key, jnp.array([client])))[0]


sent = jax.jit(sent_by, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def scored(
    federation: Federation,
    key: keys.Words,
    sent: Broadcast,
    private: Private,
    population: Population,
) -> tuple[Float[Array, "rows items"], Float[Array, "rows views"]]:
    """See `evaluate.scores`; of every row that is a client's."""
    chosen = population.client >= 0
    return evaluate.scores(federation, key, sent, private, population, chosen)


@functools.partial(jax.jit, static_argnums=0)
def _beginnings(
    model: ClientModel, key: keys.Words, clients: Int[Array, " n"]
) -> Float[Array, "n numbers"]:
    return beginnings(model, key)(clients)


def _best(run: Path) -> int:
    return record.summary(run, ("best_round",))["best_round"]


def _load(run: Path, like: FederationState) -> FederationState:
    best, checkpoints = _best(run), Checkpoints(run / record.CHECKPOINTS)
    if best not in checkpoints.rounds():
        raise UserError(
            f"{run}: the checkpoint of round {best} is not there, expected a run with "
            "--keep_checkpoints=best or all"
        )
    try:
        with numerics.as_written():
            return checkpoints.load(best, like)[0]
    except DamagedError as damage:
        raise UserError(f"{damage}; what the run has learned cannot be read") from None
