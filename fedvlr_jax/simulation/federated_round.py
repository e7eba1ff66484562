"""One federated round of the whole cohort as one jitted program.

Views out, every client of the cohort trained (vmap over a chunk, a loop over chunks, shard_map
over the devices), the weighted sum taken across devices, one step of the server.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client.compression import Residual, compressed
from fedvlr_jax.client.model import ClientData, ClientState
from fedvlr_jax.client.privacy import clipped
from fedvlr_jax.client.update import ClientRates, LocalTraining
from fedvlr_jax.client.ways import choose
from fedvlr_jax.client.whole import changed, joined
from fedvlr_jax.fusion.operators import Features
from fedvlr_jax.protocol import Broadcast, CohortSum, Upload
from fedvlr_jax.server import aggregate, alternating, spectral
from fedvlr_jax.server.aggregate import Gathered, Server, ServerRates, ServerState
from fedvlr_jax.server.privacy import noised
from fedvlr_jax.simulation import clock, keys
from fedvlr_jax.simulation.chunks import for_each_chunk
from fedvlr_jax.simulation.clock import Attendance, Clock, Rules, Times
from fedvlr_jax.simulation.mesh import AXIS, BY_CLIENT, EVERYWHERE
from fedvlr_jax.simulation.population import Bucket, Population, with_pools
from fedvlr_jax.simulation.private import Private, all_finite, beginnings
from fedvlr_jax.simulation.sampling import choose_clients
from fedvlr_jax.simulation.sums import added

_BASE = 4096  # see `Counts`


class Rates(NamedTuple):
    """All learning rates of a run; traced, so changing them compiles nothing.

    `dropout` is the probability that a sampled client does not take part, `late` that what it
    uploads arrives a round late, `noise` the noise on the
    sum of clipped uploads, in clip norms, `gradient_noise` that on the mean gradient. `times` are
    of the clients' devices, None where they have none.
    """

    server: ServerRates
    client: ClientRates
    dropout: Float[Array, ""]
    late: Float[Array, ""]
    noise: Float[Array, ""]
    gradient_noise: Float[Array, ""]
    times: Times | None = None


class Flight(NamedTuple):
    """The clients that train while the server takes steps (buffered.py), by client id.

    `due` is in how many milliseconds each uploads, -1 for those that do not train, `began` the
    number of rounds that were done when it began. `versions` are what the server has learned, as
    it was in the last rounds: round k's is at place k modulo their number.
    """

    due: Int[Array, " clients"]
    began: Int[Array, " clients"]
    versions: aggregate.Shared


class FederationState(NamedTuple):
    """All that changes during a run.

    `private` has a row for every client (client/flat.py); None where it is not on the devices, or
    not needed.
    `diverged` is the first round whose loss or parameters were not finite, -1 while there is none.
    `late` is what clients have uploaded that counts in the next round, None where all are on time.
    `time` is the simulated time, None without devices; `flight` is there with a buffer only.
    """

    key: keys.Words
    round: Int[Array, ""]
    diverged: Int[Array, ""]
    server: ServerState
    private: Float[Array, "rows numbers"] | None
    late: Gathered | None = None
    time: Clock | None = None
    flight: Flight | None = None


class Participation(NamedTuple):
    """How many clients took part in a round: sampled, and not dropped out.

    `by_length` counts them by their number of train items, `late` those whose uploads arrive a
    round late, `cut_off` others that began to train for nothing. It is the simulator's own, for its
    reports; no server learns it from a `CohortSum`.
    """

    by_length: Int[Array, " lengths"]
    late: Int[Array, ""]
    cut_off: Int[Array, ""]


class Outcome(NamedTuple):
    """What a round came to.

    `loss` is the weighted mean training loss of the uploads that the server had in the round, 0
    where there were none, `milliseconds` the simulated time that it took, 0 without devices.
    """

    loss: Float[Array, ""]
    participation: Participation
    milliseconds: Int[Array, ""]


class Counts(NamedTuple):
    """What is counted of the clients that train.

    `numbers` are how many arrive late, and how many have 0, 1, ... train items: multiples of
    `_BASE`, and what is left. As float32 they travel with the cohort's sum, and stay exact for
    16 million times `_BASE` clients. `bad` counts chunks with a private state that is not finite.
    """

    numbers: Float[Array, "2 numbers"]
    bad: Float[Array, ""]

    def with_chunk(
        self,
        there: Bool[Array, " chunk"],
        data: ClientData,
        arrival: Int[Array, " chunk"],
        n_items: int,
    ) -> "Counts":
        """After a chunk of clients; those that are not `there` are unused places."""
        length = (data.history < n_items).sum(axis=1)
        lengths = jnp.arange(self.numbers.shape[1] - 1)
        of_length = there[:, None] & (length[:, None] == lengths)
        late = (there & (arrival > 0)).sum(dtype=jnp.int32)[None]
        more = jnp.concatenate([late, of_length.sum(axis=0, dtype=jnp.int32)])
        return self._replace(numbers=self.numbers.at[1].add(more)).carried()

    def with_states(self, after: ClientState | None) -> "Counts":
        """After a chunk's private states, None where they stay as they are."""
        return self if after is None else self._replace(bad=self.bad + ~all_finite(after))

    def plus(self, other: "Counts") -> "Counts":
        """Of both together."""
        return jax.tree.map(jnp.add, self, other).carried()

    def carried(self) -> "Counts":
        """With what is left below `_BASE`."""
        high, low = self.numbers
        over = jnp.floor(low / _BASE)
        return self._replace(numbers=jnp.stack([high + over, low - _BASE * over]))

    def participation(self, cut_off: Int[Array, ""]) -> Participation:
        """How many clients these are, beside those that were cut off."""
        high, low = self.numbers.astype(jnp.int32)
        late, by_length = jnp.split(high * _BASE + low, [1])
        return Participation(by_length, late[0], cut_off)


class Spent(NamedTuple):
    """What a round has taken: milliseconds, and clients that began for nothing.

    `time` and `flight` are those of the state after it.
    """

    elapsed: Int[Array, ""]
    cut_off: Int[Array, ""]
    time: Clock | None = None
    flight: Flight | None = None


class Uploaded(NamedTuple):
    """The clients' half of a round, without their states: sums of uploads, counts, the time.

    With a buffer `totals` are pulled back to what the server learns already, as uploads are of
    different versions of it.
    """

    totals: CohortSum | Gathered
    counts: Counts
    spent: Spent


@dataclass(frozen=True)
class Federation:
    """All that stays the same: who is there, how they train and are evaluated. Static under jit.

    Attributes:
        server: the server's model and optimizer.
        training: how one client trains.
        n_clients: number of clients U, without padding rows.
        n_items: number of items I.
        cohort: clients sampled per round, 0 for all.
        skew: how unevenly clients are available, see `choose_clients`.
        late: whether some clients' uploads arrive a round late.
        rules: how the server waits for clients whose devices take time; None where none do.
        buckets: widths and chunk sizes of training.
        sample: clients that are evaluated, 0 for all.
        evaluation_buckets: widths and chunk sizes of evaluation.
        mesh: the devices.
        runs: how many runs train together.
        precision: of every matrix product of a run (numerics.py: products).
        top: items of every client's ranking that are kept.
        warm: the same of the warm rounds before these, which may have others before them; None
            without.
    """

    server: Server
    training: LocalTraining
    n_clients: int
    n_items: int
    cohort: int
    skew: float
    late: bool
    buckets: tuple[Bucket, ...]
    sample: int
    evaluation_buckets: tuple[Bucket, ...]
    mesh: Mesh
    runs: int = 1
    precision: str = "highest"
    top: int = 50
    warm: "Federation | None" = None
    rules: Rules | None = None

    @property
    def phases(self) -> "tuple[Federation, ...]":
        """The same of all kinds of warm rounds that a run begins with, in order."""
        return (*self.warm.phases, self.warm) if self.warm else ()

    @property
    def warm_rounds(self) -> int:
        """How many warm rounds a run begins with."""
        return sum(phase.server.warm.rounds for phase in self.phases)

    @property
    def is_buffered(self) -> bool:
        """Whether the server takes steps while clients train (buffered.py)."""
        return self.rules is not None and self.rules.buffer > 0

    @property
    def is_warm(self) -> bool:
        """Whether the rounds are warm ones."""
        return self.server.warm is not None

    @property
    def kind(self) -> str:
        """Of warm rounds, `als` for those of alternating least squares; none for other rounds."""
        if not self.is_warm:
            return ""
        return "als" if self.server.mode == "items" else "warm"

    def of_round(self, number: int) -> "Federation":
        """The same of the round after `number` others."""
        early = self.warm is not None and number < self.warm_rounds
        return self.warm.of_round(number) if early else self


def train_cohort(
    federation: Federation,
    sent: Broadcast,
    private: Private,
    population: Population,
    taking_part: Bool[Array, " rows"],
    rates: Rates,
    key: keys.Words,
    stragglers: Bool[Array, " clients"] | None = None,
) -> tuple[Private, CohortSum, Counts]:
    """Train every client that takes part, on the device that has it, and sum their uploads.

    Late or not, a client trains on what was sent in this round. The sum is stacked by arrival: in
    time, and late where that can happen, as drawn or for `stragglers`, by client id. Warm rounds
    need no private states.
    """
    training = federation.training
    local = choose(training)

    def on_device(
        sent: Broadcast,
        private: Private,
        population: Population,
        taking_part: Array,
        rates: Rates,
        key: keys.Words,
        stragglers: Array | None,
    ) -> tuple[Private, CohortSum, Counts]:
        round_key = keys.for_round(key, keys.CLIENT, sent.round)
        arrival = jnp.zeros_like(population.client)
        if federation.late:
            late = is_late(key, sent.round, population.client, rates.late)
            if stragglers is not None:
                late |= of_rows(stragglers, population.client)
            arrival = late.astype(jnp.int32)

        rounding_key = keys.for_round(key, keys.ROUNDING, sent.round)
        compression = training.model.compression

        def whole(
            parts: Upload, last: Upload, owed: Residual | None, client: Array
        ) -> tuple[Upload, Residual | None]:
            upload = joined(parts, last)
            if training.aggregation.of_client is not None:
                upload = changed(training.aggregation, upload, federation.n_items)
            if compression is not None:
                own_key = jax.random.fold_in(rounding_key, client)
                upload, owed = compressed(compression, upload, owed, federation.n_items, own_key)
            return (clipped(upload, rates.client.clip) if training.clipped else upload), owed

        def body(rows: Array, data: ClientData, carry: tuple) -> tuple:
            private, totals, counts = carry
            here = arrival.at[rows].get(mode="clip")
            counts = counts.with_chunk(rows < len(arrival), data, here, federation.n_items)
            data = with_pools(data, key, federation.n_items, training.model.pool)
            before = private.read(training.model, rows)
            client_keys = jax.vmap(lambda c: jax.random.fold_in(round_key, c))(data.client)
            owed = None
            if before is not None:
                before, owed = before._replace(residual=None), before.residual
                owed = _of_used(rows < len(arrival), owed)
            begin = functools.partial(local.begin, training, sent)
            work = jax.vmap(begin)(before, data, client_keys)

            def epoch(carry: tuple, number: Array) -> tuple[tuple, Upload | None]:
                work, totals = carry
                work, uploads = jax.vmap(
                    lambda work, data: local.epoch(training, sent, work, data, rates.client, number)
                )(work, data)
                if training.held:
                    return (work, totals), uploads
                return (work, added(totals, uploads, here)), None

            (work, totals), parts = jax.lax.scan(epoch, (work, totals), jnp.arange(training.epochs))
            after, last = jax.vmap(
                lambda work, data, key: local.finish(training, sent, work, data, rates.client, key)
            )(work, data, client_keys)
            if training.held:
                last, owed = jax.vmap(whole, in_axes=(1, 0, 0, 0))(parts, last, owed, data.client)
                if owed is not None:
                    after = after._replace(residual=owed)
            totals = added(totals, last, here)
            return private.write(rows, after), totals, counts.with_states(after)

        private, totals, counts = for_each_chunk(
            population,
            taking_part,
            federation.buckets,
            federation.n_items,
            body,
            (private, *nothing(federation, sent)),
        )
        # All in one, so that the devices wait for one another once.
        totals, counts = jax.lax.psum((totals, counts), AXIS)
        return private, totals, counts

    return jax.shard_map(
        on_device,
        mesh=federation.mesh,
        in_specs=(EVERYWHERE, BY_CLIENT, BY_CLIENT, BY_CLIENT, *[EVERYWHERE] * 3),
        out_specs=(BY_CLIENT, EVERYWHERE, EVERYWHERE),
        check_vma=False,
    )(sent, private, population, taking_part, rates._replace(times=None), key, stragglers)


def _of_used(used: Bool[Array, " chunk"], owed: Residual | None) -> Residual | None:
    """What the clients of a chunk owe; its unused places, read from some client, owe nothing."""
    return jax.tree.map(lambda x: jnp.where(used.reshape(-1, *[1] * (x.ndim - 1)), x, 0), owed)


def of_rows(chosen: Bool[Array, " clients"], client: Int[Array, " rows"]) -> Bool[Array, " rows"]:
    """A choice by client id, for the clients of some rows; False in padding rows."""
    return chosen.at[client].get(mode="fill", fill_value=False, wrap_negative_indices=False)


def clients_half(
    federation: Federation,
    state: FederationState,
    population: Population,
    features: Features,
    rates: Rates,
    wanted: Bool[Array, ""] | None = None,
) -> tuple[Private, Uploaded]:
    """A round up to the cohort's sums; where it is not `wanted` nobody takes part."""
    sent = sent_by(federation, state, features, rates)
    came, spent = attendance(federation, state.key, state.round, state.time, rates)
    taking_part = of_rows(came.trains, population.client)
    if wanted is not None:
        taking_part &= wanted
    private, totals, counts = train_cohort(
        federation,
        sent,
        Private(state.private),
        population,
        taking_part,
        rates,
        state.key,
        came.late if federation.rules else None,
    )
    return private, Uploaded(totals, counts, spent)


def attendance(
    federation: Federation,
    key: keys.Words,
    number: Int[Array, ""],
    time: Clock | None,
    rates: Rates,
) -> tuple[Attendance, Spent]:
    """Who takes part in round `number`, and what it takes; nothing of it hangs on training.

    Where devices take time, a cohort is drawn from the clients that can be asked; the server waits
    for the first one if there is none. Where it asks everybody, each begins when it can.
    """
    rules, nothing = federation.rules, jnp.zeros((), jnp.int32)
    draw = functools.partial(drawn, federation, key, number, rates.dropout)
    if rules is None:
        sampled, stays = draw(federation.cohort)
        trains = sampled & stays
        return Attendance(trains, jnp.zeros_like(trains)), Spent(nothing, nothing)
    times, waits = rates.times, clock.until_open(rates.times, time)
    took = clock.durations(times, federation.kind, key, number)
    before = nothing
    if rules.asked:
        before = waits.min()
        open_then = clock.until_open(times, time.after(before)) == 0
        asked, stays = draw(rules.asked, open_then)
    else:
        asked, stays = draw(0)
        took = jnp.minimum(took + waits, clock.LONGEST)
    came, end = clock.synchronous(rules, took, asked, stays, times.deadline)
    cut_off = (asked & stays & ~came.trains).sum(dtype=jnp.int32)
    elapsed = before + end
    return came, Spent(elapsed, cut_off, time.after(elapsed))


def sent_by(
    federation: Federation, state: FederationState, features: Features, rates: Rates
) -> Broadcast:
    """What the server of a state sends to its clients."""
    if federation.is_warm:
        return _warm(federation).broadcast(
            federation.server, state.server, state.round, rates.server
        )
    return aggregate.broadcast(federation.server, state.server, features, state.round, rates.server)


def _warm(federation: Federation) -> ModuleType:
    """The server's half of warm rounds."""
    return alternating if federation.server.mode == "items" else spectral


def is_late(
    key: keys.Words,
    number: Int[Array, ""],
    client: Int[Array, " rows"],
    probability: Float[Array, ""],
) -> Bool[Array, " rows"]:
    """Whose uploads of round `number` arrive a round late; it depends on key, round and id only."""
    late_key = keys.for_round(key, keys.LATE, number)
    drawn = jax.vmap(lambda c: jax.random.uniform(jax.random.fold_in(late_key, c)))(client)
    return drawn < probability


def nothing(federation: Federation, sent: Broadcast) -> tuple[CohortSum, Counts]:
    """The sum of no uploads, for every time of arrival, and nobody counted."""
    arrivals = 2 if federation.late else 1
    if federation.is_warm:
        of_one = _warm(federation).nothing(sent)
    else:
        of_one = aggregate.nothing(federation.server, sent, federation.training.by_item)
    return jax.tree.map(lambda x: jnp.zeros((arrivals, *x.shape)), of_one), nobody(federation)


def nobody(federation: Federation) -> Counts:
    """Nobody counted."""
    lengths = federation.buckets[-1].width + 1
    return Counts(jnp.zeros((2, 1 + lengths)), jnp.zeros(()))


def server_step(
    federation: Federation,
    state: FederationState,
    features: Features,
    uploaded: Uploaded,
    rates: Rates,
) -> tuple[FederationState, Outcome]:
    """The server's half of a round: the state with all but `private` after it, and the outcome.

    What was uploaded in time is added to what is late from the round before, gradients of what was
    sent then. In a warm round there is neither, nor a loss.
    """
    totals = uploaded.totals
    in_time, late = jax.tree.map(lambda x: x[0], totals), None
    noise_key = keys.for_round(state.key, keys.NOISE, state.round)
    total = in_time
    if federation.training.clipped:
        asked = federation.cohort or federation.n_clients
        total = noised(total, noise_key, rates.noise * rates.client.clip, asked)
    if federation.is_warm:
        server = _warm(federation).step(
            federation.server, state.server, features, total, state.round, rates.server
        )
        return after_step(state, server, state.late, uploaded, jnp.zeros(()))
    noise = aggregate.Noise(noise_key, rates.gradient_noise)
    gather = functools.partial(aggregate.gathered, federation.server, state.server, features)
    found = gather(total)
    losses, weight = found.loss, found.weight
    if federation.late:
        found = jax.tree.map(jnp.add, found, state.late)
        late = gather(jax.tree.map(lambda x: x[1], totals))
        # Of clipped uploads `found.weight` is the number that were asked; the loss is of all that
        # there are.
        losses = in_time.loss + state.late.loss
        weight = in_time.weight + state.late.weight
    server = aggregate.step(
        federation.server, state.server, found, state.round, rates.server, noise
    )
    return after_step(state, server, late, uploaded, losses / jnp.maximum(weight, 1))


def federated_round(
    federation: Federation,
    state: FederationState,
    population: Population,
    features: Features,
    rates: Rates,
    clients: Callable[..., tuple[Private, Uploaded]] = clients_half,
    server: Callable[..., tuple[FederationState, Outcome]] = server_step,
) -> tuple[FederationState, Outcome]:
    """One round (METHOD "One round"): the state after it, and what it came to.

    Its two halves are these, or those of buffered.py.
    """
    private, uploaded = clients(federation, state, population, features, rates)
    state, outcome = server(federation, state, features, uploaded, rates)
    return state._replace(private=private.states), outcome


def after_step(
    state: FederationState,
    server: ServerState,
    late: Gathered | None,
    uploaded: Uploaded,
    loss: Float[Array, ""],
) -> tuple[FederationState, Outcome]:
    """The state after a round that has come to this, and the outcome."""
    number, counts, spent = state.round + 1, uploaded.counts, uploaded.spent
    finite = (counts.bad == 0) & jnp.isfinite(loss) & _all_finite((server.params, late))
    diverged = jnp.where((state.diverged < 0) & ~finite, number, state.diverged)
    # Warm rounds leave those alone that train while the server takes steps.
    flight = state.flight if spent.flight is None else spent.flight
    after = FederationState(
        state.key, number, diverged, server, state.private, late, spent.time, flight
    )
    return after, Outcome(loss, counts.participation(spent.cut_off), spent.elapsed)


def drawn(
    federation: Federation,
    key: keys.Words,
    number: Int[Array, ""],
    dropout: Float[Array, ""],
    size: int | Int[Array, ""],
    among: Bool[Array, " clients"] | None = None,
) -> tuple[Bool[Array, " clients"], Bool[Array, " clients"]]:
    """Which clients are sampled in round `number`, and who of all would not drop out."""
    n = federation.n_clients
    sample_key = keys.for_round(key, keys.COHORT, number)
    sampled = choose_clients(sample_key, jnp.arange(n), n, size, federation.skew, among)

    def stay() -> Bool[Array, " clients"]:
        return jax.random.uniform(keys.for_round(key, keys.DROPOUT, number), (n,)) >= dropout

    return sampled, jax.lax.cond(dropout > 0, stay, lambda: jnp.ones_like(sampled))


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def init_server(federation: Federation, features: Features, key: keys.Words) -> FederationState:
    """The state before the first round, without the clients' private states."""
    server_key = keys.stream(key, keys.SERVER)
    server = aggregate.init(federation.server, features, server_key)
    if federation.phases:
        first, *others = federation.phases
        warmed = spectral.init(first.server, jax.random.fold_in(server_key, 2))
        for phase in others:
            warmed = alternating.init(phase.server, warmed, server.params.fusion)
        server = server._replace(warmed=warmed)
    number = jnp.zeros((), jnp.int32)
    late = None
    if federation.late:
        nothing_late = jax.tree.map(jnp.zeros_like, server.params)
        late = Gathered(nothing_late, jnp.zeros(()), jnp.zeros(()))
    never = jnp.full((), -1, jnp.int32)
    time = None if federation.rules is None else clock.begin()
    state = FederationState(key, number, never, server, None, late, time)
    if federation.is_buffered:
        idle = jnp.full(federation.n_clients, -1, jnp.int32)
        of_each = (federation.rules.versions,)
        versions = jax.tree.map(lambda x: jnp.zeros(of_each + x.shape), server.params)
        state = state._replace(flight=Flight(idle, jnp.zeros_like(idle), versions))
    return state


def shared_shapes(federation: Federation, features: Features) -> FederationState:
    """Shapes of the state of a run alone, without private states."""
    return jax.eval_shape(functools.partial(init_server, federation), features, keys.from_seed(0))


def init_state(
    federation: Federation, features: Features, population: Population, key: keys.Words
) -> FederationState:
    """The state before the first round."""
    model = federation.training.model
    private = beginnings(model, key)(population.client)
    return init_server(federation, features, key)._replace(private=private)
