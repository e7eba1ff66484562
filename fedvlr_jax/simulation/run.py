"""A whole run: train, evaluate, choose the best round on validation, write what was found."""

import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from fedvlr_jax import data as data_sets
from fedvlr_jax import files
from fedvlr_jax.analysis import metrics, popularity, privacy, routers
from fedvlr_jax.config import LAYOUT, Config, check_population
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.processes import together
from fedvlr_jax.report import Reporter, Silent
from fedvlr_jax.simulation import fit, folder, keys, memory, trainers
from fedvlr_jax.simulation.accounting import padded_share, parameter_counts, protocol_of
from fedvlr_jax.simulation.checkpoint import Checkpoints, DamagedError, Progress
from fedvlr_jax.simulation.evaluate import evaluated_clients
from fedvlr_jax.simulation.round import FederationState
from fedvlr_jax.simulation.simulation import Simulation, build
from fedvlr_jax.simulation.trainer import Trainer
from fedvlr_jax.version import __version__


@dataclass(frozen=True)
class Result:
    """A finished run: the content of `summary.json`, and the folder that holds everything."""

    summary: dict[str, Any]
    out: Path


def default_out(config: Config) -> Path:
    """`runs/<data>-<variant>-seed<seed>-<digest>`.

    The digest is of all settings but the rounds and those that change no result.
    """
    flat = {k: v for k, v in config.flat().items() if k not in ("rounds", *LAYOUT)}
    if config.data.data != "synthetic":
        flat["data"] = str(Path(config.data.data).resolve())
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:8]
    name = Path(config.data.data).resolve().name
    return Path("runs") / f"{name}-{config.method.variant}-seed{config.schedule.seed}-{digest}"


def train(
    config: Config,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    dataset: Dataset | None = None,
) -> Result:
    """Train a federation, or go on with one, until its last round or until patience runs out.

    Args:
        config: from `Config.of`.
        out: the run's folder; by default one below `runs/` named after the settings. A folder
            that holds an unfinished run of the same configuration is gone on with; a finished one
            is returned as it is.
        reporter: told about progress; silent by default.
        dataset: the data of `config`, if it is loaded already.

    Returns:
        The summary (see docs/outputs.md) and the folder.

    Raises:
        UserError: bad settings, data or folder, processes that differ in them, or training that
            diverged.
    """
    start = time.perf_counter()
    memory.reset_peak()
    reporter = reporter if reporter and together.is_first() else Silent()
    out = default_out(config) if out is None else Path(out)
    together.check_same("settings", json.dumps([config.flat(), str(out)]))
    dataset = dataset or data_sets.load(config)
    check_population(config, dataset.interactions.n_clients)
    for note in dataset.notes:
        reporter.note(note)
    data_seconds = time.perf_counter() - start
    simulation = build(config, dataset)
    _check_sample(config, dataset, simulation)
    settings = config.flat() | {
        "devices": simulation.federation.mesh.devices.size,
        "private_state": trainers.place_of_states(config, simulation),
        "data_fingerprint": dataset.fingerprint(),
    }
    together.check_same("data", settings["data_fingerprint"])
    with folder.claimed(out, settings):
        summary = folder.finished_summary(out, config.schedule.rounds)
        if summary is not None:
            reporter.note(f"{out}: this run is finished, nothing to do")
            return Result(summary, out)
        run = _Run(config, dataset, simulation, out, reporter, start, data_seconds)
        resident = settings["private_state"] == "device"
        with fit.explained(simulation.federation, resident):
            return Result(run.finish(*run.train()), out)


def _check_sample(config: Config, dataset: Dataset, simulation: Simulation) -> None:
    """Refuse an evaluation sample in which nobody has a validation item."""
    data, size = dataset.interactions, config.schedule.eval_clients
    chosen = evaluated_clients(
        simulation.evaluation,
        keys.from_seed(config.schedule.seed),
        jnp.arange(data.n_clients),
    )
    if (data.valid[np.asarray(chosen)] < 0).all():
        raise UserError(
            f"--eval_clients={size}: none of the clients sampled with --seed="
            f"{config.schedule.seed} has a validation item, expected a larger sample"
        )


@dataclass(frozen=True)
class _Run:
    config: Config
    dataset: Dataset
    simulation: Simulation
    out: Path
    reporter: Reporter
    start: float
    data_seconds: float

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.out / "checkpoints")

    def train(self) -> tuple[Trainer, Progress]:
        """Rounds, evaluations and checkpoints to the end; the trainer at the best round."""
        schedule = self.config.schedule
        trainer, progress = self._resume()
        begun = time.perf_counter()
        trainer.compile()
        if progress.round < schedule.rounds and not progress.stopped:
            compile_seconds = progress.compile_seconds + time.perf_counter() - begun
            progress = dataclasses.replace(progress, compile_seconds=compile_seconds)
        before = progress.total_seconds
        self.reporter.begin(progress.round, schedule.rounds, "round")
        while progress.round < schedule.rounds and not progress.stopped:
            # Up to the next evaluation nothing moves between host and device unless it is meant.
            left = min(
                schedule.eval_every - progress.round % schedule.eval_every,
                schedule.rounds - progress.round,
            )
            seconds = []
            with jax.transfer_guard("disallow"):
                for number in range(progress.round + 1, progress.round + left + 1):
                    begun = time.perf_counter()
                    loss = trainer.round()
                    seconds.append(time.perf_counter() - begun)
                    self.reporter.advance(number)
            self._refuse_divergence(trainer.state, progress)
            progress = self._evaluated(trainer, progress, float(loss), seconds)
            elapsed = time.perf_counter() - self.start
            progress = dataclasses.replace(progress, total_seconds=before + elapsed)
            trainer.save(self.checkpoints, progress)
            self._write(files.append_line, "metrics.jsonl", progress.lines[-1])
            self.reporter.evaluated(progress.lines[-1])
        self.reporter.end()
        if progress.stopped:
            self.reporter.note(
                f"stopped at round {progress.round}: no better validation score in "
                f"{progress.since_best} evaluations"
            )
        if progress.best_round != progress.round:
            try:
                trainer.go_back(self.checkpoints, progress.best_round)
            except DamagedError as damage:
                raise UserError(
                    f"{damage}; the best round cannot be ranked: remove {self.out} to start anew"
                ) from None
        return trainer, progress

    def _resume(self) -> tuple[Trainer, Progress]:
        """At the last complete checkpoint, or at the initial state."""
        checkpoints = self.checkpoints
        trainer = trainers.create(self.config, self.simulation, self.out)
        if together.is_first():
            checkpoints.clean()
        progress = Progress()
        if checkpoints.rounds():
            progress, complaints = trainer.resume(checkpoints)
            for complaint in complaints:
                self.reporter.note(complaint)
            if together.is_first():
                checkpoints.point_at_best(progress)
            self.reporter.note(f"{self.out}: going on after round {progress.round}")
        self._write(files.write_lines, "metrics.jsonl", progress.lines)
        return trainer, progress

    def _write(self, write: Callable[..., None], name: str, *content: Any, **arrays: Any) -> None:
        """Write a file of the run's folder, in one process."""
        if together.is_first():
            write(self.out / name, *content, **arrays)

    def _refuse_divergence(self, state: FederationState, progress: Progress) -> None:
        bad = int(jax.device_get(state.diverged))
        if bad >= 0:
            kept = f"round {progress.round}" if progress.round else "none, it was too early"
            raise DivergedError(
                f"round {bad}: the loss or a parameter is not finite, expected smaller learning "
                f"rates (--server_lr, --client_lr, --router_lr); last good checkpoint: {kept}"
            )

    def _evaluated(
        self,
        trainer: Trainer,
        progress: Progress,
        loss: float,
        seconds: list[float],
    ) -> Progress:
        """Progress after evaluating the validation split."""
        begun = time.perf_counter()
        found = metrics.from_ranks(trainer.ranks("valid"), self.dataset.interactions.warm("valid"))
        eval_seconds = time.perf_counter() - begun
        number = progress.round + len(seconds)
        score = metrics.selection_score(found)
        better = score > progress.best_score
        since_best = 0 if better else progress.since_best + 1
        patience = self.config.schedule.patience
        round_seconds = progress.round_seconds + seconds
        line = {
            "round": number,
            "train_loss": loss,
            "seconds": round(sum(round_seconds), 6),
            **{f"valid/{name}": value for name, value in found.items()},
        }
        return dataclasses.replace(
            progress,
            round=number,
            best_round=number if better else progress.best_round,
            best_score=score if better else progress.best_score,
            since_best=since_best,
            stopped=bool(patience) and since_best >= patience,
            lines=[*progress.lines, line],
            round_seconds=round_seconds,
            eval_seconds=[*progress.eval_seconds, eval_seconds],
        )

    def finish(self, trainer: Trainer, progress: Progress) -> dict[str, Any]:
        """Test the best round and write rankings, per-client results and the summary."""
        data = self.dataset.interactions
        ranks, warm = trainer.ranks("test"), data.warm("test")
        found = trainer.rankings()
        users, weights = found.users, found.weights
        self._write(files.write_arrays, "rankings.npz", users=users, topk=found.top)
        self._write(
            files.write_arrays,
            "per_user.npz",
            user=users,
            rank=ranks[users],
            history_length=data.lengths[users],
            warm=warm[users],
            views=np.array(self.simulation.federation.server.fusion.views),
            view_weights=weights,
            reliance=found.reliance,
        )
        summary = self._summary(trainer, progress, metrics.from_ranks(ranks, warm), users)
        summary["composition"] = {
            view: dict(zip(MODALITIES, np.round(shares, 4).tolist(), strict=True))
            for view, shares in zip(
                self.simulation.federation.server.fusion.views, found.composition, strict=True
            )
        }
        if self.config.method.variant == "fedvlr":
            router = routers.summarize(tuple(summary["composition"]), weights)
            self.reporter.note(router.sentence())
            summary["router"] = dataclasses.asdict(router) | {"collapsed": router.collapsed}
        trainer.close()
        self._write(files.write_json, "summary.json", summary)
        return summary

    def _summary(
        self,
        trainer: Trainer,
        progress: Progress,
        test: dict[str, float | None],
        users: Int[np.ndarray, " evaluated"],
    ) -> dict[str, Any]:
        data, federation = self.dataset.interactions, self.simulation.federation
        protocol = protocol_of(self.simulation, trainer.state)
        best = next(line for line in progress.lines if line["round"] == progress.best_round)
        prefix = "valid/"
        return {
            "version": __version__,
            "data": {
                "name": self.dataset.name,
                "clients": data.n_clients,
                "items": data.n_items,
                "train_interactions": int(data.lengths.sum()),
                "padded_share": padded_share(federation, data.lengths),
            },
            "best_round": progress.best_round,
            "rounds_done": progress.round,
            "stopped_early": progress.stopped,
            "valid": {
                name.removeprefix(prefix): value
                for name, value in best.items()
                if name.startswith(prefix)
            },
            "test": test,
            "popularity": {split: self._popularity(split, users) for split in ("valid", "test")},
            "timing": self._timing(progress),
            "memory": {
                "peak_rss_bytes": memory.peak_bytes(),
                "client_state_bytes": trainer.private_bytes,
            },
            "communication": {
                "download_bytes_per_client_round": protocol.download_bytes(),
                "upload_bytes_per_client_round": float(protocol.upload_bytes(data.lengths).mean()),
                "protocol": dataclasses.asdict(protocol),
            },
            "privacy": self._privacy(progress),
            "parameters": parameter_counts(self.simulation, trainer.state),
            "devices": federation.mesh.devices.size,
            "processes": together.count(),
        }

    def _privacy(self, progress: Progress) -> dict[str, float] | None:
        """The budget that the rounds done have spent, None without noise on clipped uploads."""
        part, simulation = self.config.participation, self.simulation
        if not part.noise_multiplier:
            return None
        spent = privacy.epsilon(
            part.noise_multiplier,
            progress.round,
            simulation.cohort_size,
            simulation.n_clients,
            part.delta,
        )
        self.reporter.note(
            f"privacy: ({spent:.2f}, {part.delta:g})-differential privacy of a user after "
            f"{progress.round} rounds"
        )
        return {"epsilon": spent, "delta": part.delta}

    def _popularity(
        self, split: str, users: Int[np.ndarray, " evaluated"]
    ) -> dict[str, float | None]:
        """Metrics of ranking by popularity, over the same clients as the run's."""
        data = self.dataset.interactions
        ranks = popularity.held_out_ranks(data, getattr(data, split), self.config.schedule.seed)
        return metrics.from_ranks(ranks[users], data.warm(split)[users])

    def _timing(self, progress: Progress) -> dict[str, float | None]:
        # The first round of a run is left out, as it may still warm up caches.
        steady = progress.round_seconds[1:]
        return {
            "data_seconds": self.data_seconds,
            "compile_seconds": progress.compile_seconds,
            "round_seconds_median": statistics.median(steady) if steady else None,
            "client_rounds_per_second": (
                self.simulation.cohort_size * len(steady) / sum(steady) if steady else None
            ),
            "eval_seconds_median": statistics.median(progress.eval_seconds),
            "total_seconds": progress.total_seconds,
        }
