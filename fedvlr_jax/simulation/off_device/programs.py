"""The programs of training in waves; together they are one round or one evaluation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Lowered
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.fusion.composition import composition
from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.protocol import Broadcast, CohortSum
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import evaluate, keys
from fedvlr_jax.simulation.clock import Attendance, Clock
from fedvlr_jax.simulation.federated_round import (
    Counts,
    Federation,
    FederationState,
    Outcome,
    Rates,
    Spent,
    Uploaded,
    attendance,
    nothing,
    sent_by,
    server_step,
    train_cohort,
)
from fedvlr_jax.simulation.mesh import by_client, everywhere
from fedvlr_jax.simulation.off_device.bring import Sources, bring
from fedvlr_jax.simulation.population import Population
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.programs import Settings
from fedvlr_jax.simulation.simulation import abstract

States = Float[Array, "rows numbers"]
Sums = tuple[CohortSum, Counts]


def lowered(settings: Settings) -> dict[str, Lowered]:
    """The programs before they are compiled, for a state and the sources of a wave.

    `cohort`: key, round, time, rates -> which clients take part, and what that takes.
    `open`: state, features, rates -> views, and a sum of nothing.
    `bring`: states that nobody needs any more (donated), where the wave's are, population, key ->
    the wave's states.
    `wave`: states and sums (both donated), views, population, rates, key, who is late -> states and
    sums.
    `close`: state, features, sums, what the round takes, rates -> state, outcome.
    `warm cohort`, `warm open`, `warm wave`, `warm close`: the same of a warm round, where a run has
    some; `als open` and so on likewise.
    `ranks`: views, states, population, key, target -> ranks.
    `remove`: state, features, rates -> the views without each modality, and what they are made of.
    `rankings`: views, those without each modality, states, population, key -> tastes.
    """
    federation = settings.federation
    (state, sources), population, features, rates = settings.begin()
    clients, alike = by_client(federation.mesh), everywhere(federation.mesh)

    def brought(into: States, sources: Sources, population: Population, key: keys.Words) -> States:
        return bring(federation, into, sources, population.client, key)

    def ranks(
        sent: Broadcast,
        states: States,
        population: Population,
        key: keys.Words,
        target: Int[Array, " rows"],
    ) -> Int[Array, " rows"]:
        chosen, private = population.client >= 0, Private(states)
        return evaluate.held_out_ranks(federation, key, sent, private, population, chosen, target)

    def remove(
        state: FederationState, features: Features, rates: Rates
    ) -> tuple[Float[Array, "modalities items views dim"], Float[Array, "views modalities"]]:
        views = sent_by(federation, state, features, rates).views
        removed = aggregate.removals(federation.server, state.server, features, views)
        return removed, composition(views, removed)

    def rankings(
        sent: Broadcast,
        removed: Float[Array, "modalities items views dim"],
        states: States,
        population: Population,
        key: keys.Words,
    ) -> evaluate.Tastes:
        chosen, private = population.client >= 0, Private(states)
        return evaluate.rankings(federation, key, sent, removed, private, population, chosen)

    def lower(function: Any, *arguments: Any, **options: Any) -> Lowered:
        with numerics.products(federation.precision):
            return jax.jit(function, **options).lower(*arguments)

    states, key = sources.recent, state.key
    sent, (removed, _) = abstract(
        (
            jax.eval_shape(functools.partial(sent_by, federation), state, features, rates),
            jax.eval_shape(remove, state, features, rates),
        ),
        alike,
    )
    shapes = (states, state, population, features, rates)
    of_a_round = {
        f"{one.kind} {name}".strip(): program
        for one in (*federation.phases, federation)
        for name, program in _of_a_round(one, lower, shapes).items()
    }
    return of_a_round | {
        "bring": lower(
            brought, states, sources, population, key, donate_argnums=0, out_shardings=clients
        ),
        "ranks": lower(ranks, sent, states, population, key, population.valid),
        "remove": lower(remove, state, features, rates, out_shardings=alike),
        "rankings": lower(rankings, sent, removed, states, population, key),
    }


def _of_a_round(
    federation: Federation,
    lower: Callable[..., Lowered],
    shapes: tuple,
) -> dict[str, Lowered]:
    """Programs `cohort`, `open`, `wave` and `close` of a round.

    Args:
        federation: of the round.
        lower: (function, its arguments, options of `jax.jit`) -> a program.
        shapes: of a wave's states, the state, population, features and rates.
    """
    states, state, population, features, rates = shapes
    clients, alike = by_client(federation.mesh), everywhere(federation.mesh)

    def opened(state: FederationState, features: Features, rates: Rates) -> tuple[Broadcast, Sums]:
        sent = sent_by(federation, state, features, rates)
        return sent, nothing(federation, sent)

    def wave(
        states: States,
        sums: Sums,
        sent: Broadcast,
        population: Population,
        rates: Rates,
        key: keys.Words,
        late: Bool[Array, " clients"],
    ) -> tuple[States, Sums]:
        everybody = population.client >= 0
        totals, counts = sums
        before = Private(None if federation.is_warm else states)
        private, more, others = train_cohort(
            federation, sent, before, population, everybody, rates, key, late
        )
        states = states if federation.is_warm else private.states
        return states, (jax.tree.map(jnp.add, totals, more), counts.plus(others))

    def close(
        state: FederationState, features: Features, sums: Sums, spent: Spent, rates: Rates
    ) -> tuple[FederationState, Outcome]:
        return server_step(federation, state, features, Uploaded(*sums, spent), rates)

    def cohort(
        key: keys.Words, number: Int[Array, ""], time: Clock | None, rates: Rates
    ) -> tuple[Attendance, Spent]:
        return attendance(federation, key, number, time, rates)

    came, spent = jax.eval_shape(cohort, state.key, state.round, state.time, rates)
    late, spent = abstract((came.late, spent), alike)
    sent, sums = abstract(jax.eval_shape(opened, state, features, rates), alike)
    return {
        "cohort": lower(cohort, state.key, state.round, state.time, rates, out_shardings=alike),
        "open": lower(opened, state, features, rates, out_shardings=alike),
        "wave": lower(
            wave,
            states,
            sums,
            sent,
            population,
            rates,
            state.key,
            late,
            donate_argnums=(0, 1),
            out_shardings=(clients, alike),
        ),
        "close": lower(
            close, state, features, sums, spent, rates, donate_argnums=0, out_shardings=alike
        ),
    }
