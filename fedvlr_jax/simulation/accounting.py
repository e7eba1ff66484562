"""What a simulation is made of, in numbers: padding, parameters, what is sent."""

import jax
import numpy as np
from jaxtyping import Int

from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.simulation.population import padded_places
from fedvlr_jax.simulation.round import Federation, FederationState
from fedvlr_jax.simulation.simulation import Simulation


def padded_share(federation: Federation, lengths: Int[np.ndarray, " clients"]) -> float:
    """Share of history places that are padding when every client trains, from 0 to 1."""
    places = padded_places(lengths, tuple(bucket.width for bucket in federation.buckets))
    return float(1 - lengths.sum() / places)


def parameter_counts(simulation: Simulation, state: FederationState) -> dict[str, int]:
    """Numbers that the server learns, and that each client keeps to itself."""
    return {
        "server": sum(leaf.size for leaf in jax.tree.leaves(state.server.params)),
        "private_per_client": simulation.federation.training.model.private_numbers(),
    }


def protocol_of(simulation: Simulation, state: FederationState) -> Protocol:
    """What server and clients send each other."""
    federation = simulation.federation
    training, model = federation.training, federation.training.model
    fusion, network = (
        sum(leaf.size for leaf in jax.tree.leaves(part)) for part in state.server.params
    )
    return Protocol(
        n_items=federation.n_items,
        n_views=model.n_views,
        dim=model.dim,
        network=network,
        gamma=fusion - federation.n_items * model.dim,
        pool=model.pool,
        draws=training.epochs * training.negatives,
        local=training.mode == "local",
    )
