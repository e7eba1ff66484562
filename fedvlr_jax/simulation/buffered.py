"""Asynchronous rounds with a buffer: the server takes a step while others go on training.

After Nguyen et al. 2022 (FedBuff, arXiv 2106.06639): as many clients as a cohort has train at a
time, each on what the server sent when it began. When the buffer is full of uploads, the server
takes a step along their weighted sum, in which one whose client began s steps ago counts
(1 + s)^-p, and asks others in the place of those that are done. FedBuff asks the next client as
soon as one is done; here it waits for the step, so that between M - K and M of M clients train.

When clients upload does not depend on what they learn, so a client trains when its upload arrives,
on the version that it was sent: the server keeps its last ones. A round is a step of the server.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.server import aggregate
from fedvlr_jax.server.aggregate import Gathered
from fedvlr_jax.simulation import clock, keys
from fedvlr_jax.simulation.chunks import same_in_all
from fedvlr_jax.simulation.federated_round import (
    Federation,
    FederationState,
    Flight,
    Outcome,
    Rates,
    Spent,
    Uploaded,
    after_step,
    drawn,
    nobody,
    of_rows,
    sent_by,
    train_cohort,
)
from fedvlr_jax.simulation.population import Population
from fedvlr_jax.simulation.private import Private


def clients_half(
    federation: Federation,
    state: FederationState,
    population: Population,
    features: Features,
    rates: Rates,
    wanted: Bool[Array, ""] | None = None,
) -> tuple[Private, Uploaded]:
    """A round up to the sums of what has arrived; where it is not `wanted` nobody takes part."""
    arrived, spent = arrivals(federation, state, rates)
    if wanted is not None:
        arrived = jnp.where(wanted, arrived, -1)
    slots = spent.flight.versions
    n_versions = federation.rules.versions
    present = (arrived[:, None] == jnp.arange(n_versions)).any(axis=0)
    # Versions that nobody has trained on are left out.
    ages = jnp.nonzero(present, size=n_versions, fill_value=n_versions)[0]

    def body(index: Array, carry: tuple) -> tuple:
        private, found, counts = carry
        age = ages[index]
        params = jax.tree.map(lambda x: x[(state.round - age) % n_versions], slots)
        then = state._replace(round=state.round - age, server=state.server._replace(params=params))
        sent = sent_by(federation, then, features, rates)
        mine = of_rows(arrived == age, population.client)
        private, totals, more = train_cohort(
            federation, sent, private, population, mine, rates, state.key
        )
        total = jax.tree.map(lambda x: x[0], totals)
        own = aggregate.gathered(federation.server, then.server, features, total)
        share = (1.0 + age) ** -rates.times.staleness
        own = own._replace(gradient=jax.tree.map(lambda x: share * x, own.gradient))
        return private, jax.tree.map(jnp.add, found, own), counts.plus(more)

    none = Gathered(jax.tree.map(jnp.zeros_like, state.server.params), jnp.zeros(()), jnp.zeros(()))
    start = (Private(state.private), none, nobody(federation))
    private, found, counts = jax.lax.fori_loop(0, same_in_all(present.sum()), body, start)
    return private, Uploaded(found, counts, spent)


def arrivals(
    federation: Federation, state: FederationState, rates: Rates
) -> tuple[Int[Array, " clients"], Spent]:
    """Whose uploads the server takes a step with, and the time until then.

    Returns:
        How many steps ago each of these clients began, -1 for all others.
    """
    rules, flight, times = federation.rules, state.flight, rates.times
    versions = jax.tree.map(
        lambda x, y: x.at[state.round % rules.versions].set(y),
        flight.versions,
        state.server.params,
    )
    # Others take the places of those that are done; the server waits if there is nobody at all.
    idle = flight.due < 0
    train = (~idle).sum()
    waits = clock.until_open(times, state.time)
    before = jnp.where(train == 0, waits.min(), 0)
    open_then = clock.until_open(times, state.time.after(before)) == 0
    most = rules.asked or federation.n_clients
    sampled, stays = drawn(
        federation, state.key, state.round, rates.dropout, most - train, idle & open_then
    )
    begins = sampled & stays
    took = clock.durations(times, federation.kind, state.key, state.round)
    due = jnp.where(begins, took, flight.due)
    began = jnp.where(begins, state.round, flight.began)

    training, age = due >= 0, state.round - began
    counts = training & (age < rules.versions)
    full = clock.nth(due, counts, jnp.minimum(rules.buffer, counts.sum()))
    end = jnp.where(counts.any(), full, jnp.where(training, due, 0).max())
    done = training & (due <= end)
    left = jnp.where(training & ~done, due - end, -1)
    elapsed = before + end
    spent = Spent(
        elapsed,
        (done & ~counts).sum(dtype=jnp.int32),
        state.time.after(elapsed),
        Flight(left, began, versions),
    )
    return jnp.where(done & counts, age, -1), spent


def server_step(
    federation: Federation,
    state: FederationState,
    features: Any,  # noqa: ARG001 - gradients have been pulled back
    uploaded: Uploaded,
    rates: Rates,
) -> tuple[FederationState, Outcome]:
    """The server's half of a round, see `federated_round.server_step`."""
    found = uploaded.totals
    noise = aggregate.Noise(
        keys.for_round(state.key, keys.NOISE, state.round), rates.gradient_noise
    )
    server = aggregate.step(
        federation.server, state.server, found, state.round, rates.server, noise
    )
    loss = found.loss / jnp.maximum(found.weight, 1)
    return after_step(state, server, state.late, uploaded, loss)
