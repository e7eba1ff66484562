"""How long clients take: what their devices do in a round, and how fast they do it."""

import numpy as np
from jaxtyping import Int

from fedvlr_jax.analysis import operations
from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.config import Config
from fedvlr_jax.data import devices
from fedvlr_jax.simulation import clock
from fedvlr_jax.simulation.accounting import warm_protocols_of
from fedvlr_jax.simulation.clock import LONGEST, Times
from fedvlr_jax.simulation.federated_round import Federation

_BITS = 8e-6  # of a byte, in millions


def times_of(
    config: Config,
    federation: Federation,
    protocol: Protocol,
    lengths: Int[np.ndarray, " clients"],
) -> Times:
    """What the clock knows of a run's clients, whose devices take time.

    Raises:
        UserError: a table of devices that cannot be used.
    """
    rules = config.clock
    found = devices.load(rules.devices_profile, federation.n_clients)
    protocols = {"": protocol, **warm_protocols_of(federation)}
    work = {one.kind: work_of(one, protocol) for one in (*federation.phases, federation)}
    seconds = {
        kind: (
            work[kind].operations(lengths) / (1e9 * found.gflops)
            + _BITS * protocol.download_bytes() / found.down_mbps
            + _BITS * protocol.upload_bytes(lengths) / found.up_mbps
        )
        for kind, protocol in protocols.items()
    }
    opens, open_for = clock.windows(found)
    deadline = max(round(1000 * rules.deadline), 1) if rules.deadline else LONGEST
    return Times(
        {kind: x.clip(max=LONGEST / 1000).astype(np.float32) for kind, x in seconds.items()},
        found.spread,
        opens,
        open_for,
        np.int32(deadline),
        np.float32(rules.staleness_power),
    )


def work_of(
    federation: Federation, protocol: Protocol
) -> operations.Training | operations.Warm | operations.Alternating:
    """What a client does in a round of this federation, whatever was before it."""
    training, model, server = federation.training, federation.training.model, federation.server
    if server.mode == "items":
        return operations.Alternating(server.fusion.dim)
    if federation.is_warm:
        return operations.Warm(server.warm.columns if server.mode == "products" else 0)
    return operations.Training(
        n_items=federation.n_items,
        n_views=model.n_views,
        dim=model.dim,
        width=model.width,
        epochs=training.epochs,
        negatives=federation.n_items if training.expected else training.negatives,
        routed=model.routed,
        exact=training.exact,
        network=protocol.network,
        gamma=protocol.gamma if protocol.local else 0,
    )
