"""The programs of a run: what they are compiled for, and those of all clients on the devices."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled, Lowered
from jaxtyping import Array, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.fusion.composition import composition
from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import buffered, evaluate, federated_round, kept
from fedvlr_jax.simulation.federated_round import (
    Federation,
    FederationState,
    Outcome,
    Rates,
    sent_by,
)
from fedvlr_jax.simulation.mesh import RUNS, everywhere
from fedvlr_jax.simulation.population import Population
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.simulation import Simulation, abstract


@dataclass(frozen=True)
class Settings:
    """What programs are compiled for: static settings, and the shapes of arguments, flattened.

    `before` is called before they are; it makes no difference between two.
    """

    federation: Federation
    structure: Any
    leaves: tuple
    before: Callable[[], None] | None = field(default=None, compare=False)

    def begin(self) -> tuple:
        """Say that compiling begins; the shapes of the arguments."""
        if self.before is not None:
            self.before()
        return jax.tree.unflatten(self.structure, self.leaves)


def settings_of(
    simulation: Simulation,
    state: Any,
    population: Population | None = None,
    before: Callable[[], None] | None = None,
) -> Settings:
    """What a simulation's programs are compiled for.

    Args:
        simulation: everything fixed.
        state: what changes from round to round, of all its runs; or its shapes.
        population: the clients' data, the simulation's if it is not given.
        before: called if there is something to compile.
    """
    population = simulation.population if population is None else population
    arguments = (state, population, simulation.features, simulation.rates)
    leaves, structure = jax.tree.flatten(abstract(arguments))
    return Settings(simulation.federation, structure, tuple(leaves), before)


def lowered(settings: Settings) -> dict[str, Lowered]:
    """The programs of runs with all private states on the devices, before they are compiled.

    `round`: state, population, features, rates -> state (donated), outcome.
    `ranks`: state, population, features, rates, target -> every client's rank.
    `rankings`: state, population, features, rates -> every client's tastes, and what views are
    made of.

    Of several runs state and rates are stacked by run, the population if each has its own, and so
    is what comes out.
    """
    federation = settings.federation
    state, population, features, rates = settings.begin()

    def ranks(
        state: FederationState,
        population: Population,
        features: Features,
        rates: Rates,
        target: Int[Array, " rows"],
    ) -> Int[Array, " rows"]:
        sent = sent_by(federation, state, features, rates)
        chosen = evaluate.evaluated_clients(federation, state.key, population.client)
        private = Private(state.private)
        return evaluate.held_out_ranks(
            federation, state.key, sent, private, population, chosen, target
        )

    def rankings(
        state: FederationState, population: Population, features: Features, rates: Rates
    ) -> tuple[evaluate.Tastes, Float[Array, "views modalities"]]:
        sent = sent_by(federation, state, features, rates)
        removed = aggregate.removals(federation.server, state.server, features, sent.views)
        chosen = evaluate.evaluated_clients(federation, state.key, population.client)
        private = Private(state.private)
        tastes = evaluate.rankings(
            federation, state.key, sent, removed, private, population, chosen
        )
        return tastes, composition(sent.views, removed)

    after = (jax.tree.map(lambda leaf: leaf.sharding, state), everywhere(federation.mesh))
    by_run = population.client.ndim > 1
    step = round_of(federation, by_run)
    ranks = _over_runs(federation, ranks, True, by_run, False, True, by_run)
    rankings = _over_runs(federation, rankings, True, by_run, False, True)
    step = jax.jit(step, donate_argnums=0, out_shardings=after)
    with numerics.products(federation.precision):
        return {
            "round": step.lower(state, population, features, rates),
            "ranks": jax.jit(ranks).lower(state, population, features, rates, population.valid),
            "rankings": jax.jit(rankings).lower(state, population, features, rates),
        }


def _over_runs(federation: Federation, function: Callable, *stacked: bool) -> Callable:
    """The function mapped over the runs that train together, where there are several.

    Args:
        federation: of all runs.
        function: of one run.
        stacked: whether its arguments are stacked by run, in order.
    """
    if federation.runs == 1:
        return function
    axes = tuple(0 if x else None for x in stacked)
    return jax.vmap(function, in_axes=axes, spmd_axis_name=RUNS)


def round_of(
    federation: Federation, by_run: bool = False
) -> Callable[..., tuple[FederationState, Outcome]]:
    """The round of one or several runs, a warm one as long as a run has warm rounds left.

    In a warm round nobody trains, so that no private state takes part in the choice between the
    two: what does is there twice. Runs that are at different rounds may share the program.

    Args:
        federation: of all runs.
        by_run: whether every run has a population of its own.

    Returns:
        state, population, features, rates -> state, outcome.
    """
    over = functools.partial(_over_runs, federation)
    stacked = (True, by_run, False, True)  # state, population, features, rates
    kind = buffered if federation.is_buffered else federated_round
    if federation.warm is None:
        whole = functools.partial(
            federated_round.federated_round,
            federation,
            clients=kind.clients_half,
            server=kind.server_step,
        )
        return over(whole, *stacked)
    clients = over(functools.partial(kind.clients_half, federation), *stacked, True)
    server = over(functools.partial(kind.server_step, federation), True, False, True, True)
    warm_round = round_of(federation.warm, by_run)

    def step(
        state: FederationState, population: Population, features: Features, rates: Rates
    ) -> tuple[FederationState, Outcome]:
        is_warm = state.round < federation.warm_rounds
        private, uploaded = clients(state, population, features, rates, ~is_warm)
        state = state._replace(private=None)

        def normal() -> tuple[FederationState, Outcome]:
            return server(state, features, uploaded, rates)

        def warm() -> tuple[FederationState, Outcome]:
            found = warm_round(state, population, features, rates)
            if federation.runs == 1:
                return found

            def chosen(x: Array, y: Array) -> Array:
                return jnp.where(is_warm.reshape(-1, *[1] * (x.ndim - 1)), x, y)

            return jax.tree.map(chosen, found, normal())

        state, outcome = jax.lax.cond(is_warm.any(), warm, normal)
        return state._replace(private=private.states), outcome

    return step


@functools.lru_cache(maxsize=4)
def compiled(
    settings: Settings, lower: Callable[[Settings], Mapping[str, Lowered]] = lowered
) -> dict[str, Compiled]:
    """The programs that `lower` makes, by name; compiled once per process."""
    return kept.compiled(settings, settings.federation.mesh, lower)
