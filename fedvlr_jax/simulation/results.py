"""What a finished run leaves: rankings, per-client results, and the summary."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from fedvlr_jax import files
from fedvlr_jax.analysis import metrics, popularity, privacy, routers
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.processes import together
from fedvlr_jax.simulation import fit, folder, memory
from fedvlr_jax.simulation.accounting import (
    padded_share,
    parameter_counts,
    participation,
    protocol_of,
    speed,
    traffic,
)
from fedvlr_jax.simulation.checkpoint import Progress
from fedvlr_jax.simulation.course import Course
from fedvlr_jax.simulation.trainer import Run
from fedvlr_jax.version import __version__


def write(course: Course, run: Run, progress: Progress) -> dict[str, Any]:
    """Test the best round and write rankings, per-client results and the summary.

    Args:
        course: of the run.
        run: at its best round.
        progress: where it has ended.

    Returns:
        The content of summary.json (docs/outputs.md).

    Raises:
        DivergedError: a score of the best round, or what is derived from it, is not finite.
    """
    data = course.dataset.interactions
    ranks, warm = course.ranks(run, "test", progress.best_round), data.warm("test")
    found = run.rankings()
    for derived in (found.weights, found.reliance, found.composition):
        if not np.isfinite(derived).all():
            raise course.divergence(progress.best_round)
    users, weights = found.users, found.weights
    course.write(files.write_arrays, "rankings.npz", users=users, topk=found.top)
    course.write(
        files.write_arrays,
        "per_user.npz",
        user=users,
        rank=ranks[users],
        history_length=data.lengths[users],
        warm=warm[users],
        views=np.array(course.simulation.federation.server.fusion.names),
        view_weights=weights,
        reliance=found.reliance,
    )
    summary = _summary(course, run, progress, metrics.from_ranks(ranks, warm), users)
    summary["composition"] = {
        view: dict(zip(MODALITIES, np.round(shares, 4).tolist(), strict=True))
        for view, shares in zip(
            course.simulation.federation.server.fusion.names, found.composition, strict=True
        )
    }
    summary["reliance"] = dataclasses.asdict(routers.summarize(MODALITIES, found.reliance))
    if course.config.method.variant == "fedvlr":
        router = routers.summarize(tuple(summary["composition"]), weights)
        course.reporter.note(router.sentence())
        summary["router"] = dataclasses.asdict(router) | {"collapsed": router.collapsed}
    run.close()
    course.write(files.write_json, "summary.json", summary)
    return summary


def _summary(
    course: Course,
    run: Run,
    progress: Progress,
    test: dict[str, float | None],
    users: Int[np.ndarray, " evaluated"],
) -> dict[str, Any]:
    data, federation = course.dataset.interactions, course.simulation.federation
    state = run.state  # of a run among others, a copy
    protocol = protocol_of(course.simulation, state)
    best = next(line for line in progress.lines if line["round"] == progress.best_round)
    prefix = "valid/"
    return {
        "version": __version__,
        "jax": folder.environment_of(course.out),
        "data": {
            "name": course.dataset.name,
            "clients": data.n_clients,
            "items": data.n_items,
            "train_interactions": int(data.lengths.sum()),
            "padded_share": padded_share(federation, data.lengths),
        },
        "best_round": progress.best_round,
        "best_is_last": progress.best_round == progress.round,
        "rounds_done": progress.round,
        "stopped_early": progress.stopped,
        "valid": {
            name.removeprefix(prefix): value
            for name, value in best.items()
            if name.startswith(prefix)
        },
        "test": test,
        "popularity": {split: _popularity(course, split, users) for split in ("valid", "test")},
        "timing": _timing(course, progress),
        "memory": {
            "peak_rss_bytes": memory.peak_bytes(),
            # Without the rows that fill up the devices.
            "client_state_bytes": min(
                run.private_bytes, fit.state_bytes(federation) // federation.runs
            ),
        },
        "participation": participation(course.simulation.cohort_size, progress),
        "communication": traffic(protocol, progress) | {"protocol": dataclasses.asdict(protocol)},
        "privacy": _privacy(course, progress),
        "parameters": parameter_counts(course.simulation, state),
        "devices": federation.mesh.devices.size,
        "processes": together.count(),
    }


def _privacy(course: Course, progress: Progress) -> dict[str, float | None] | None:
    """The budget that the rounds done have spent, None without noise on clipped uploads."""
    part, simulation = course.config.participation, course.simulation
    if not part.noise_multiplier:
        return None
    spent = privacy.epsilon(
        part.noise_multiplier,
        progress.round,
        simulation.cohort_size,
        simulation.n_clients,
        part.delta,
    )
    if spent is None:
        budget = (
            f"no finite epsilon at delta {part.delta:g}, so no meaningful differential privacy,"
        )
    else:
        budget = f"({spent:.2f}, {part.delta:g})-differential privacy of a user"
    course.reporter.note(f"privacy: {budget} after {progress.round} rounds")
    return {"epsilon": spent, "delta": part.delta}


def _popularity(
    course: Course, split: str, users: Int[np.ndarray, " evaluated"]
) -> dict[str, float | None]:
    """Metrics of ranking by popularity, over the same clients as the run's."""
    data = course.dataset.interactions
    ranks = popularity.held_out_ranks(data, getattr(data, split), course.config.schedule.seed)
    return metrics.from_ranks(ranks[users], data.warm(split)[users])


def _timing(course: Course, progress: Progress) -> dict[str, float | None]:
    return {
        "data_seconds": course.data_seconds,
        "compile_seconds": progress.compile_seconds,
        **speed(progress),
        "eval_seconds_median": statistics.median(progress.eval_seconds),
        "total_seconds": progress.total_seconds,
        "runs_together": course.simulation.federation.runs,
    }


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """What a person should know of a finished run's numbers, as sentences.

    Args:
        summary: the content of its summary.json.
    """
    found = []
    # Runs of versions that did not count have neither.
    if summary.get("participation", {}).get("trained") == 0:
        found.append(
            f"no client trained in any of the {summary['rounds_done']} rounds (--dropout): "
            "nothing was learned"
        )
    elif summary.get("best_is_last"):
        found.append("the best round is the last one: a larger --rounds may do better")
    return found
