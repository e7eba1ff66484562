"""Full ranking on the devices: where every client's held-out item stands, and its top items.

METHOD "Evaluation". Candidates are all items but the client's train items. Ties are broken by a
seeded random order that is another one for every client. A rank needs no sorting: it is the number
of candidates that come before the held-out item.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from fedvlr_jax.client.experts import with_neighbours
from fedvlr_jax.client.least_squares import with_head
from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.reliance import reliance
from fedvlr_jax.protocol import Broadcast
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.chunks import for_each_chunk
from fedvlr_jax.simulation.federated_round import Federation
from fedvlr_jax.simulation.mesh import BY_CLIENT, EVERYWHERE
from fedvlr_jax.simulation.population import NO_ITEM, Population, with_pools
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.sampling import choose_clients

NOT_FINITE = -2  # in place of a rank
Shared = TypeVar("Shared")  # a pytree of arrays that is the same for all clients
Results = TypeVar("Results")  # a pytree of arrays with a leading row axis


class Tastes(NamedTuple):
    """Clients' top items, view weights w_u, and reliance of their scores on each modality."""

    top: Int[Array, "rows top"]
    weights: Float[Array, "rows views"]
    reliance: Float[Array, "rows modalities"]


def tie_order(key: Array, client: Int[Array, ""], n_items: int) -> UInt32[Array, " items"]:
    """A random order of the items for one client: distinct numbers, small ones first.

    All clients share one random permutation, and each stretches it by an odd factor and a shift of
    its own modulo 2**24, which keeps the numbers of up to 2**24 items distinct, exact as floats,
    and costs one multiplication an item.
    """
    shared = jax.random.permutation(key, jnp.arange(n_items, dtype=jnp.uint32))
    factor, shift = jax.random.bits(jax.random.fold_in(key, client), (2,), jnp.uint32)
    return (shared * (factor | 1) + shift) & 0xFFFFFF


class Scored(NamedTuple):
    """One client's scores of all items, -inf for its train items, its view weights and its state.

    Where heads are solved the state has the one that solves its problem now.
    """

    scores: Float[Array, " items"]
    weights: Float[Array, " views"]
    state: ClientState


def candidate_scores(
    model: ClientModel, sent: Broadcast, state: ClientState, data: ClientData
) -> Scored:
    """What one client makes of all items under the views that were sent."""
    n_items = sent.views.shape[0]
    real = data.history < n_items
    history_rows = sent.views.at[data.history].get(mode="clip")
    weights = model.view_weights(state, history_rows, real)
    state = with_head(model, sent, state, weights, history_rows, real)
    scores = model.scores(sent.network, state, weights, sent.views)
    if state.own is not None:  # those of the history are no candidates
        rows = sent.views.at[data.pool].get(mode="clip")
        mine = model.own_scores(sent.network, state, weights, rows, state.own.vectors[: model.pool])
        scores = scores.at[data.pool].set(mine, mode="drop")
    scores = with_neighbours(sent.neighbours, scores, data.history, real)
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    return Scored(scores.at[data.history].set(-jnp.inf, mode="drop"), weights, state)


def rank_of(
    scores: Float[Array, " items"], order: UInt32[Array, " items"], target: Int[Array, ""]
) -> Int[Array, ""]:
    """How many items come before `target`, by score and then by `order`; -1 without a target."""
    own_score, own_order = scores[target], order[target]
    before = (scores > own_score) | ((scores == own_score) & (order < own_order))
    return jnp.where(target >= 0, before.sum(dtype=jnp.int32), -1)


def top_items(
    scores: Float[Array, " items"], order: UInt32[Array, " items"], top: int
) -> Int[Array, " top"]:
    """Ids of the first `top` candidates by score and then by `order`, -1 where there are fewer.

    `jax.lax.top_k` is many times faster than sorting all items, but takes the lowest ids among
    equal scores. So the items that tie with the last score taken are chosen once more, by `order`.
    """
    size = min(top, scores.shape[0])
    best, best_items = jax.lax.top_k(scores, size)
    last = best.min()
    _, tied_items = jax.lax.top_k(
        jnp.where(scores == last, -order.astype(jnp.float32), -jnp.inf), size
    )
    items = jnp.concatenate([best_items, tied_items])
    surely = jnp.arange(2 * size) < size
    score = scores[items]
    wanted = jnp.isfinite(score) & jnp.where(surely, score > last, score == last)
    lowest_first = jnp.where(wanted, -score, jnp.inf)
    lowest_first, _, ranked = jax.lax.sort((lowest_first, order[items], items), num_keys=2)
    ranked = jnp.where(jnp.isfinite(lowest_first), ranked, NO_ITEM)[:size]
    return jnp.pad(ranked, (0, top - size), constant_values=NO_ITEM)


def evaluated_clients(
    federation: Federation, key: keys.Words, client: Int[Array, " rows"]
) -> Bool[Array, " rows"]:
    """Which rows are evaluated: all clients, or a uniform sample that the run's key fixes."""
    sample_key = keys.stream(key, keys.SAMPLE)
    return choose_clients(sample_key, client, federation.n_clients, federation.sample)


def held_out_ranks(
    federation: Federation,
    key: keys.Words,
    sent: Broadcast,
    private: Private,
    population: Population,
    chosen: Bool[Array, " rows"],
    target: Int[Array, " rows"],
) -> Int[Array, " rows"]:
    """Every chosen client's rank (0 = first) of its item in `target`; -1 for all others.

    `NOT_FINITE` stands for a chosen client that has a candidate whose score is not finite or has
    an infinite square: its ranking means nothing, and what is derived from its scores overflows.
    """

    def one(
        sent: Broadcast, key: keys.Words, state: ClientState, data: ClientData, target: Array
    ) -> Array:
        ties = keys.stream(key, keys.TIES)
        scores, *_ = candidate_scores(federation.training.model, sent, state, data)
        candidates = federation.n_items - (data.history < federation.n_items).sum()
        finite = jnp.isfinite(jnp.square(scores)).sum() == candidates
        rank = rank_of(scores, tie_order(ties, data.client, federation.n_items), target)
        return jnp.where(finite, rank, NOT_FINITE)

    empty = jnp.full(population.client.shape, -1, jnp.int32)
    return _over_clients(federation, one, key, sent, private, population, chosen, target, empty)


def scores(
    federation: Federation,
    key: keys.Words,
    sent: Broadcast,
    private: Private,
    population: Population,
    chosen: Bool[Array, " rows"],
) -> tuple[Float[Array, "rows items"], Float[Array, "rows views"]]:
    """Every chosen client's `candidate_scores` of all items; NaN for the other clients."""

    def one(
        sent: Broadcast, _key: keys.Words, state: ClientState, data: ClientData, _: Array
    ) -> tuple[Array, Array]:
        scores, weights, _ = candidate_scores(federation.training.model, sent, state, data)
        return scores, weights

    n_rows, unused = population.client.shape[0], population.client
    widths = federation.n_items, federation.training.model.n_views
    empty = tuple(jnp.full((n_rows, width), jnp.nan) for width in widths)
    return _over_clients(federation, one, key, sent, private, population, chosen, unused, empty)


def rankings(
    federation: Federation,
    key: keys.Words,
    sent: Broadcast,
    removed: Float[Array, "modalities items views dim"],
    private: Private,
    population: Population,
    chosen: Bool[Array, " rows"],
) -> Tastes:
    """What every chosen client gets to see and what it looks at; for the others -1 and NaN."""
    model = federation.training.model

    def one(
        shared: tuple[Broadcast, Array],
        key: keys.Words,
        state: ClientState,
        data: ClientData,
        _: Array,
    ) -> Tastes:
        sent, removed = shared
        ties = keys.stream(key, keys.TIES)
        scores, weights, state = candidate_scores(model, sent, state, data)
        order = tie_order(ties, data.client, federation.n_items)
        top = top_items(scores, order, federation.top)
        relies = reliance(model, sent.network, state, weights, sent.views, removed)
        return Tastes(top, weights, relies)

    n_rows = population.client.shape[0]
    empty = Tastes(
        jnp.full((n_rows, federation.top), NO_ITEM, jnp.int32),
        jnp.full((n_rows, model.n_views), jnp.nan),
        jnp.full((n_rows, len(removed)), jnp.nan),
    )
    shared, unused = (sent, removed), population.client
    return _over_clients(federation, one, key, shared, private, population, chosen, unused, empty)


def _over_clients(
    federation: Federation,
    one: Callable[[Shared, keys.Words, ClientState, ClientData, Array], Results],
    key: keys.Words,
    shared: Shared,
    private: Private,
    population: Population,
    chosen: Bool[Array, " rows"],
    extra: Int[Array, " rows"],
    empty: Results,
) -> Results:
    """`one` for every chosen client, its results scattered into `empty` by row."""

    def on_device(alike: tuple, own: tuple) -> Results:
        key, shared = alike
        private, population, chosen, extra, empty = own

        def body(rows: Array, data: ClientData, results: Results) -> Results:
            data = with_pools(data, key, federation.n_items, federation.training.model.pool)
            states = private.read(federation.training.model, rows)
            extras = extra.at[rows].get(mode="clip")
            over_clients = jax.vmap(one, in_axes=(None, None, 0, 0, 0))
            found = over_clients(shared, key, states, data, extras)
            return jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), results, found)

        return for_each_chunk(
            population, chosen, federation.evaluation_buckets, federation.n_items, body, empty
        )

    return jax.shard_map(
        on_device,
        mesh=federation.mesh,
        in_specs=(EVERYWHERE, BY_CLIENT),
        out_specs=BY_CLIENT,
        check_vma=False,
    )((key, shared), (private, population, chosen, extra, empty))
