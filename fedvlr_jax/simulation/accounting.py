"""What a run is made of, in numbers: padding, parameters, who took part, what was sent."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from fedvlr_jax.analysis.communication import (
    AlternatingProtocol,
    Protocol,
    WarmProtocol,
    neighbours_bytes,
)
from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.simulation.checkpoint import Progress
from fedvlr_jax.simulation.federated_round import Federation, shared_shapes
from fedvlr_jax.simulation.population import padded_places

WarmProtocols = WarmProtocol | AlternatingProtocol


def padded_share(federation: Federation, lengths: Int[np.ndarray, " clients"]) -> float:
    """Share of history places that are padding when every client trains, from 0 to 1."""
    places = padded_places(lengths, tuple(bucket.width for bucket in federation.buckets))
    return float(1 - lengths.sum() / places)


def parameter_counts(federation: Federation, protocol: Protocol) -> dict[str, int]:
    """Numbers that the server learns, and that each client keeps to itself."""
    return {
        "server": protocol.n_items * protocol.dim + protocol.gamma + protocol.network,
        "private_per_client": federation.training.model.private_numbers(),
    }


def participation(cohort: int, progress: Progress) -> dict[str, int | None]:
    """Client rounds: a client in a round counts once (docs/outputs.md, summary.json).

    All but `asked` are None for a run that was begun where they were not counted.

    Args:
        cohort: clients that are asked in a round; with a clock those that have begun are counted.
        progress: where the run has ended.
    """
    asked = cohort * progress.round
    if not _counted(progress):
        unknown = dict.fromkeys(
            ("trained", "late", "cut_off", "uploads_counted", "rounds_without_clients")
        )
        return {"asked": asked} | unknown
    trained, cut_off = sum(progress.trained), sum(progress.cut_off.values())
    return {
        "asked": trained + cut_off if any(progress.milliseconds) else asked,
        "trained": trained,
        "late": sum(progress.late),
        "cut_off": cut_off,
        # What is late in the last round never arrives.
        "uploads_counted": trained - (progress.late[-1] if progress.late else 0),
        "rounds_without_clients": progress.trained.count(0),
    }


def traffic(
    protocol: Protocol, progress: Progress, warm: Mapping[str, WarmProtocols] | None = None
) -> dict[str, Any]:
    """Bytes that clients received and sent, over the client rounds that were trained.

    A client that drops out receives nothing and sends nothing; what arrives late was sent; a client
    that is cut off has received all and sent nothing. Totals are None where clients were not
    counted, the mean upload also where none came. Totals are over all rounds, what is per client
    round is apart for warm ones.

    Args:
        protocol: of all rounds but warm ones.
        progress: where the run has ended.
        warm: of the warm rounds, by their kind.
    """
    warm = warm or {}
    by_kind = [progress.warm_by_length.get(kind, []) for kind in warm]
    came, *came_warm = _same_length(progress.by_length, *by_kind)
    counted = _counted(progress)
    found, *totals = _sent(protocol, came - sum(came_warm), counted)
    for kind, of_kind in zip(warm, came_warm, strict=True):
        found[kind], *more = _sent(warm[kind], of_kind, counted)
        totals = [a + b for a, b in zip(totals, more, strict=True)]
    down, up = totals if counted else (None, None)
    if counted:
        protocols = {"": protocol, **warm}
        down += sum(n * protocols[kind].download_bytes() for kind, n in progress.cut_off.items())
    return found | {"download_bytes": down, "upload_bytes": up}


def _sent(
    protocol: Protocol | WarmProtocols, came: Int[np.ndarray, " lengths"], counted: bool
) -> tuple[dict[str, Any], int, float]:
    """Bytes per client round, and those received and sent by so many clients of each length."""
    lengths, down = np.flatnonzero(came), protocol.download_bytes()
    trained = int(came.sum())
    mean = None
    if counted and trained:
        mean = float((protocol.upload_bytes(lengths) * came[lengths]).sum() / trained)
    per_client = {"download_bytes_per_client_round": down, "upload_bytes_per_client_round": mean}
    return per_client, trained * down, trained * (mean or 0.0)


def _same_length(*counts: list[int]) -> Iterator[Int[np.ndarray, " lengths"]]:
    """Counts as arrays that all are as long as the longest."""
    longest = max(map(len, counts))
    for one in counts:
        yield np.pad(np.array(one, np.int64), (0, longest - len(one)))


def speed(progress: Progress) -> dict[str, float | None]:
    """Seconds of a round and client updates a second, None before the second round.

    The first round is left out, as it may still warm up caches. Medians, so that rounds in which
    the process was stopped for a while do not count as slow ones.
    """
    if progress.round < 2:
        return {"round_seconds_median": None, "client_rounds_per_second": None}
    median = statistics.median(progress.round_seconds[1:])
    counted = _counted(progress)
    return {
        "round_seconds_median": median,
        "client_rounds_per_second": (
            statistics.mean(progress.together[1:]) / median if counted else None
        ),
    }


def _counted(progress: Progress) -> bool:
    return len(progress.trained) == progress.round


def protocol_of(federation: Federation, features: Features) -> Protocol:
    """What server and clients send each other."""
    training, model = federation.training, federation.training.model
    params = shared_shapes(federation, features).server.params
    fusion, network = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in params)
    compression = model.compression
    return Protocol(
        n_items=federation.n_items,
        n_views=model.n_views,
        dim=model.dim,
        network=network,
        gamma=fusion - federation.n_items * model.dim,
        pool=model.pool,
        draws=training.epochs * training.negatives,
        local=training.mode == "local",
        exact=training.exact,
        by_item=training.by_item,
        bits=compression.bits if compression else 0,
        rows=compression.rows if compression else 0,
    )


def warm_protocols_of(federation: Federation) -> dict[str, WarmProtocols]:
    """What they send each other in warm rounds, by their kind."""
    n_items, found = federation.n_items, {}
    for phase in federation.phases:
        server = phase.server
        if server.mode == "items":
            found[phase.kind] = AlternatingProtocol(n_items, server.fusion.dim)
        else:
            columns = server.warm.columns if server.mode == "products" else 0
            found[phase.kind] = WarmProtocol(n_items, columns)
    return found


def sent_once(federation: Federation) -> dict[str, int]:
    """Bytes that a client downloads once, whatever the number of rounds; nothing for most runs."""
    kept = federation.phases[0].server.warm.neighbours if federation.phases else 0
    if not kept:
        return {}
    return {"neighbours_bytes_per_client": neighbours_bytes(federation.n_items, kept)}
