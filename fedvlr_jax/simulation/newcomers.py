"""Clients that join after training: they fit what is private, all that is shared stays as it is.

A newcomer gets the views of the run's best round, starts from the state that a member has before
its first round, and does what a member does when it is sampled, but nothing that it would upload
is used. That is the cold start of a user, apart from that of an item.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from fedvlr_jax import numerics, record
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import ClockConfig, Config, ParticipationConfig, having
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.processes import together
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation import best, evaluate, fit
from fedvlr_jax.simulation.federated_round import (
    Federation,
    FederationState,
    Rates,
    sent_by,
    train_cohort,
)
from fedvlr_jax.simulation.population import NO_CLIENT, Population
from fedvlr_jax.simulation.private import Private, beginnings
from fedvlr_jax.simulation.simulation import Simulation, build

_SPLITS = ("valid", "test")


@numerics.as_written()
def join(
    config: Config, run: Path, members: Dataset, newcomers: Dataset, rounds: int
) -> list[dict[str, int | float | None]]:
    """Let newcomers fit their private states to what a finished run has learned from members.

    The run's folder is only read. Every newcomer takes part in every round, whatever the cohort of
    the run, and is evaluated; their private states are on the devices.

    Args:
        config: of the run; rates and numbers of epochs and negatives may be others.
        run: its folder; the run was trained on `members`.
        members: both from one `data.split.split_clients`, in one process.
        newcomers: whose held-out items are warm where a member has them in its train split.
        rounds: of fitting, each of `--local_epochs` epochs; at least 0.

    Returns:
        For every number of rounds done, the first 0: `round`, `epochs` (round * local epochs), and
        metrics as in metrics.jsonl, `valid/hr@10` to `test/cold/ndcg@50`, at the `--cutoffs`.

    Raises:
        UserError: no finished run there, one of other data or with another server, a damaged
            checkpoint, too little memory, or private states that diverged.
    """
    _check(config, run, members)
    joined = fit_private(config, run, newcomers, members.interactions.n_clients, rounds)
    return [
        {"round": done, "epochs": done * config.method.local_epochs}
        | _measured(newcomers, here[:, : newcomers.interactions.n_clients], config.schedule.cutoffs)
        for done, here in enumerate(joined.ranks)
    ]


class Joined(NamedTuple):
    """Clients that have fitted their private states.

    Attributes:
        simulation: of these clients alone.
        state: of the run's best round, without private states.
        private: these clients' states after the last round.
        population: these clients, with their ids.
        ranks: of their validation and test items after every number of rounds, the first 0.
    """

    simulation: Simulation
    state: FederationState
    private: Private
    population: Population
    ranks: Int[np.ndarray, "done splits rows"]


@numerics.as_written()
def fit_private(config: Config, run: Path, newcomers: Dataset, first: int, rounds: int) -> Joined:
    """Fit the private states of newcomers, whose ids are counted from `first`; see `join`."""
    simulation = build(_alone(config), newcomers)
    federation = simulation.federation
    fit.check(federation, resident=True)
    state = best.shared_state(simulation, run)
    population = _numbered_from(simulation.population, first)
    with fit.explained(federation, resident=True), numerics.products(federation.precision):
        private, ranks, finite = fitted(
            federation,
            rounds,
            state,
            population,
            simulation.features,
            simulation.rates,
        )
        ranks, finite = together.fetched((ranks, finite))
    finite = finite & (ranks != evaluate.NOT_FINITE).all(axis=(1, 2))
    if not finite.all():
        raise DivergedError(
            f"newcomers' round {int(finite.argmin())}: a parameter is not finite, or a score, "
            "expected smaller learning rates (--client_lr, --router_lr, --own_lr)"
        )
    return Joined(simulation, state, private, population, ranks)


@functools.partial(jax.jit, static_argnums=(0, 1))
def fitted(
    federation: Federation,
    rounds: int,
    state: FederationState,
    population: Population,
    features: Features,
    rates: Rates,
) -> tuple[Private, Int[Array, "done splits rows"], Bool[Array, " done"]]:
    """Private states of new clients after `rounds` rounds under the views of `state`.

    A program for all rounds and their evaluations, so nothing moves between host and device. Round
    k draws what round `state.round` + k of the run would draw for a client of that id.

    Returns:
        The states; ranks of the validation and test items, and whether all private parameters were
        finite, after 0 to `rounds` rounds.
    """
    sent = sent_by(federation, state, features, rates)
    if sent.least_squares is not None:
        # Nothing of theirs is in what the server has learned.
        sent = sent._replace(least_squares=sent.least_squares._replace(contributions=None))
    model, everyone = federation.training.model, population.client >= 0
    targets = jnp.stack([getattr(population, split) for split in _SPLITS])
    start = Private(beginnings(model, state.key)(population.client))

    def after(private: Private, done: Int[Array, ""]) -> tuple[Private, tuple[Array, Array]]:
        # Nobody trains before the first ranking, so rounds and evaluations are compiled once.
        private, _, counts = train_cohort(
            federation,
            sent._replace(round=state.round + done - 1),
            private,
            population,
            everyone & (done > 0),
            rates,
            state.key,
        )

        def ranks(target: Int[Array, " rows"]) -> Int[Array, " rows"]:
            return evaluate.held_out_ranks(
                federation, state.key, sent, private, population, everyone, target
            )

        return private, (jax.lax.map(ranks, targets), counts.bad == 0)

    private, (ranks, finite) = jax.lax.scan(after, start, jnp.arange(rounds + 1))
    return private, ranks, finite


def _check(config: Config, run: Path, members: Dataset) -> None:
    """Refuse a run of which the config's server cannot be read."""
    if not (run / record.SUMMARY).is_file():
        raise UserError(f"{run}: no finished run, expected one that was trained on the members")
    stored, wanted = record.settings(run), config.flat()
    if stored.get("data_fingerprint") != members.fingerprint():
        raise UserError(f"{run}: a run on other data, expected one that was trained on the members")
    for name in having(Role.SERVER):
        if stored.get(name) != wanted[name]:
            raise UserError(
                f"--{name}={wanted[name]}: the run in {run} has {stored.get(name)}, expected the "
                "same"
            )


def _alone(config: Config) -> Config:
    """The configuration of clients of which all take part at once, and none uploads."""
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, cohort=0, aggregation="mean"),
        participation=ParticipationConfig(),
        clock=ClockConfig(),
        schedule=dataclasses.replace(config.schedule, eval_clients=0),
    )


def _numbered_from(population: Population, first: int) -> Population:
    """The population with ids that follow those of `first` members.

    So newcomers draw nothing - heads, pools, negatives, ties - that a member has drawn.
    """
    client = jnp.where(population.client >= 0, population.client + first, NO_CLIENT)
    return population._replace(client=client)


def _measured(
    newcomers: Dataset, ranks: Int[np.ndarray, "splits clients"], cutoffs: Sequence[int]
) -> dict[str, Any]:
    """Metrics of both splits."""
    return {
        f"{split}/{name}": value
        for split, own in zip(_SPLITS, ranks, strict=True)
        for name, value in metrics.from_ranks(
            own, newcomers.interactions.warm(split), cutoffs
        ).items()
    }
