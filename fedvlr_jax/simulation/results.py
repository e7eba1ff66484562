"""What a finished run leaves: rankings, per-client results, and the summary."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from fedvlr_jax import files, record, targets
from fedvlr_jax.analysis import exposure, metrics, popularity, privacy, routers
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.processes import together
from fedvlr_jax.simulation import fit, folder, memory
from fedvlr_jax.simulation.accounting import (
    padded_share,
    parameter_counts,
    participation,
    sent_once,
    speed,
    traffic,
    warm_protocols_of,
)
from fedvlr_jax.simulation.loop import Running
from fedvlr_jax.version import __version__


def write(run: Running) -> dict[str, Any]:
    """Test the best round and write rankings, per-client results and the summary.

    Args:
        run: that has ended, its states at its best round.

    Returns:
        The content of summary.json (docs/outputs.md).

    Raises:
        DivergedError: a score of the best round, or what is derived from it, is not finite.
    """
    data = run.dataset.interactions
    ranks, warm = run.ranks("test", run.progress.best_round), data.warm("test")
    cutoffs = run.config.schedule.cutoffs
    found = run.states.rankings()
    for derived in (found.weights, found.reliance, found.composition):
        if not np.isfinite(derived).all():
            raise run.divergence(run.progress.best_round)
    users, weights = found.users, found.weights
    run.write(files.write_arrays, record.RANKINGS, users=users, topk=found.top)
    run.write(
        files.write_arrays,
        record.PER_USER,
        user=users,
        rank=ranks[users],
        history_length=data.lengths[users],
        warm=warm[users],
        views=np.array(run.simulation.federation.server.fusion.names),
        view_weights=weights,
        reliance=found.reliance,
    )
    summary = _summary(run, metrics.from_ranks(ranks, warm, cutoffs), users)
    summary["test"]["worst_tenth/ndcg"] = metrics.worst_tenth(ranks)
    summary["exposure"] = exposure.of_rankings(found.top, data.popularity, data.n_clients, cutoffs)
    summary["composition"] = {
        view: dict(zip(MODALITIES, np.round(shares, 4).tolist(), strict=True))
        for view, shares in zip(
            run.simulation.federation.server.fusion.names, found.composition, strict=True
        )
    }
    summary["reliance"] = dataclasses.asdict(routers.summarize(MODALITIES, found.reliance))
    if run.config.method.variant == "fedvlr":
        router = routers.summarize(tuple(summary["composition"]), weights)
        run.reporter.note(router.sentence())
        summary["router"] = dataclasses.asdict(router) | {"collapsed": router.collapsed}
    run.states.close()
    run.write(files.write_json, record.SUMMARY, summary)
    return summary


def _summary(
    run: Running,
    test: dict[str, float | None],
    users: Int[np.ndarray, " evaluated"],
) -> dict[str, Any]:
    data, federation = run.dataset.interactions, run.simulation.federation
    protocol = run.simulation.protocol
    best = next(line for line in run.progress.lines if line["round"] == run.progress.best_round)
    return {
        "version": __version__,
        "jax": folder.environment_of(run.out),
        "data": {
            "name": run.dataset.name,
            "clients": data.n_clients,
            "items": data.n_items,
            "train_interactions": int(data.lengths.sum()),
            "padded_share": padded_share(federation, data.lengths),
        },
        "best_round": run.progress.best_round,
        "best_is_last": run.progress.best_round == run.progress.round and not run.progress.stopped,
        "rounds_done": run.progress.round,
        "stopped_early": run.progress.stopped,
        "valid": metrics.of_line(best),
        "test": test,
        "als_kept": _als_kept(run),
        "popularity": {split: _popularity(run, split, users) for split in ("valid", "test")},
        "timing": _timing(run),
        "memory": {
            "peak_rss_bytes": memory.peak_bytes(),
            # Without the rows that fill up the devices.
            "client_state_bytes": min(
                run.states.private_bytes, fit.state_bytes(federation) // federation.runs
            ),
        },
        "participation": participation(run.simulation.cohort_size, run.progress),
        "simulated_seconds": run.progress.simulated_seconds if federation.rules else None,
        "communication": traffic(protocol, run.progress, warm_protocols_of(federation))
        | sent_once(federation)
        | {"protocol": dataclasses.asdict(protocol)},
        "to_target": _to_target(run),
        "privacy": _privacy(run),
        "parameters": parameter_counts(federation, protocol),
        "devices": federation.mesh.devices.size,
        "processes": together.count(),
    }


def _als_kept(run: Running) -> bool | None:
    """Whether alternating passes stayed; None where there were none, or the run ended in one."""
    kinds = [phase.kind for phase in run.simulation.federation.phases]
    done = run.progress.round >= run.simulation.federation.warm_rounds
    return not run.progress.als_undone if "als" in kinds and done else None


def _to_target(run: Running) -> dict[str, Any] | None:
    """What it took to get to `--target`; None without one, or with one that hangs on other runs."""
    target = targets.parsed(run.config.schedule.target)
    if target is None or target.relative:
        return None
    return targets.costs(target, run.progress.lines, target.value)


def _privacy(run: Running) -> dict[str, float | None] | None:
    """The budget that the rounds done have spent, None without noise on clipped uploads."""
    part, simulation = run.config.participation, run.simulation
    if not part.noise_multiplier:
        return None
    spent = privacy.epsilon(
        part.noise_multiplier,
        run.progress.round,
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
    run.reporter.note(f"privacy: {budget} after {run.progress.round} rounds")
    return {"epsilon": spent, "delta": part.delta}


def _popularity(
    run: Running, split: str, users: Int[np.ndarray, " evaluated"]
) -> dict[str, float | None]:
    """Metrics of ranking by popularity, over the same clients as the run's."""
    data = run.dataset.interactions
    ranks = popularity.held_out_ranks(data, getattr(data, split), run.config.schedule.seed)
    cutoffs = run.config.schedule.cutoffs
    return metrics.from_ranks(ranks[users], data.warm(split)[users], cutoffs)


def _timing(run: Running) -> dict[str, float | None]:
    return {
        "data_seconds": run.data_seconds,
        "compile_seconds": run.progress.compile_seconds,
        **speed(run.progress),
        "eval_seconds_median": statistics.median(run.progress.eval_seconds),
        "total_seconds": run.progress.total_seconds,
        "runs_together": run.simulation.federation.runs,
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
