"""Ranks, rankings and ties on the devices, against sorting and against ranx."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ranx
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis import metrics
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import evaluate
from fedvlr_jax.simulation.evaluate import NOT_FINITE, rank_of, tie_order, top_items
from fedvlr_jax.simulation.federated_round import sent_by
from fedvlr_jax.simulation.private import Private
from tests import oracle, worlds
from tests.simulation.test_federated_round import client_state, moved, pools


@functools.cache
def _programs(federation):
    """Ranks of held-out items, and rankings, of all simulations that differ in data only."""

    def sent_and_chosen(state, population, features, rates):
        sent = sent_by(federation, state, features, rates)
        return sent, evaluate.evaluated_clients(federation, state.key, population.client)

    @jax.jit
    def ranks(state, population, features, rates, target):
        sent, chosen = sent_and_chosen(state, population, features, rates)
        private = Private(state.private)
        return evaluate.held_out_ranks(
            federation, state.key, sent, private, population, chosen, target
        )

    @jax.jit
    def rankings(state, population, features, rates):
        sent, chosen = sent_and_chosen(state, population, features, rates)
        removed = aggregate.removals(federation.server, state.server, features, sent.views)
        private = Private(state.private)
        return evaluate.rankings(federation, state.key, sent, removed, private, population, chosen)

    return ranks, rankings


def evaluated(simulation, state):
    """(valid ranks, test ranks, top items, view weights), real clients only."""
    ranks, rankings = _programs(simulation.federation)
    population = simulation.population
    given = (state, population, simulation.features, simulation.rates)
    found = (
        ranks(*given, population.valid),
        ranks(*given, population.test),
        *rankings(*given),
    )
    return [np.asarray(x)[: simulation.n_clients] for x in found]


SOLVED = {"client_solver": "exact", "unobserved_weight": 2.0, "head_penalty": 0.5}
RANKED = [
    *(("fedvlr", "fedavg", {}), ("id", "fedavg", {}), ("vbpr", "fedncf", {})),
    *(("fedvlr", "fedrap", {}), ("mlp", "pfedrec", {})),
    *(("fedvlr", "fedavg", SOLVED), ("vbpr", "fcf", SOLVED)),
]


@pytest.mark.parametrize(
    ("variant", "backbone", "solver", "devices"),
    [(*names, (8, 1)[k % 2]) for k, names in enumerate(RANKED)]
    + [
        pytest.param(*names, (1, 8)[k % 2], marks=pytest.mark.slow)
        for k, names in enumerate(RANKED)
    ],
)
def test_rankings_equal_sorting_every_clients_scores(devices, variant, backbone, solver):
    data = worlds.dataset()
    own = backbone in ("fedrap", "pfedrec")
    simulation = worlds.simulation(
        data,
        devices=devices,
        chunk=2,
        buckets=1 + (devices > 1),
        variant=variant,
        backbone=backbone,
        negative_pool=9 * own,
        **solver,
    )
    state = moved(simulation)
    if own:  # every other client has trained
        states = worlds.opened(simulation, state.private)
        trained = jnp.arange(len(states.own.trained)) % 2.0
        states = states._replace(own=states.own._replace(trained=trained))
        state = state._replace(private=worlds.closed(states, like=state.private))
    valid, test, top, weights, relies = evaluated(simulation, state)
    np.testing.assert_allclose(relies.sum(axis=1), 1, atol=1e-5)
    assert ((relies > 0).sum(axis=1) == (1 if variant == "id" else 3)).all()
    views = simulation.federation.server.fusion.names
    method = oracle.Method(
        views, backbone, variant, exact=bool(solver), unobserved=2.0, penalty=0.5
    )
    inputs = {"image": data.catalogue.image, "text": data.catalogue.text}
    shared = state.server.params._asdict()
    histories = worlds.histories(data)
    their_pools = pools(simulation, state.key, histories) or [None] * len(histories)
    fused = oracle.fused(shared["fusion"], inputs, views=views)
    for user, (history, pool) in enumerate(zip(histories, their_pools, strict=True)):
        private = client_state(simulation, state.private, user, history, pool, empty=jnp.nan)
        expected = oracle.view_weights(private["router"], fused, history)
        np.testing.assert_allclose(weights[user], expected, atol=1e-5)
        scores = oracle.all_scores(shared, private, user % 2, inputs, method, history)
        scores = np.asarray(scores)
        ranking = [i for i in np.argsort(-scores) if i not in set(history.tolist())]
        assert top[user, : len(ranking)].tolist() == ranking
        assert (top[user, len(ranking) :] == -1).all()
        assert valid[user] == ranking.index(data.interactions.valid[user])
        target = data.interactions.test[user]
        assert test[user] == (ranking.index(target) if target >= 0 else -1)


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
@pytest.mark.slow
def test_metrics_equal_ranx():
    data = worlds.dataset(lengths=(3,) * 30, n_items=120)
    simulation = worlds.simulation(data)
    _, test, top, *_ = evaluated(simulation, moved(simulation))
    users = [u for u in range(30) if data.interactions.test[u] >= 0]
    qrels = ranx.Qrels({str(u): {str(data.interactions.test[u]): 1} for u in users})
    run = ranx.Run({str(u): {str(i): 1.0 - r / 100 for r, i in enumerate(top[u])} for u in users})
    names = [f"{n}@{k}" for k in (10, 20, 50) for n in ("hit_rate", "ndcg")]
    expected = ranx.evaluate(qrels, run, names)
    found = metrics.from_ranks(test, np.ones(30, bool))
    for k in (10, 20, 50):
        assert found[f"hr@{k}"] == pytest.approx(100 * expected[f"hit_rate@{k}"])
        assert found[f"ndcg@{k}"] == pytest.approx(100 * expected[f"ndcg@{k}"])


# Every number of items is compiled.
@given(
    seed=st.integers(0, 10**6),
    client=st.integers(0, 10**6),
    n_items=st.sampled_from([1, 2, 3, 17, 60]),
)
def test_tie_order_is_a_strict_order(seed, client, n_items):
    order = np.asarray(tie_order(jax.random.key(seed), jnp.int32(client), n_items))
    assert len(np.unique(order)) == n_items


def test_constant_scores_rank_at_random():
    n_items, clients = 100, 4000
    order = functools.partial(tie_order, jax.random.key(3), n_items=n_items)
    rank = jax.jit(jax.vmap(lambda c: rank_of(jnp.zeros(n_items), order(c), jnp.int32(7))))
    ranks = np.asarray(rank(jnp.arange(clients)))
    counts = np.bincount(ranks // 10, minlength=10)
    # Chi-square with 9 degrees of freedom: 27.9 is exceeded once in a thousand seeds.
    assert ((counts - clients / 10) ** 2 / (clients / 10)).sum() < 27.9
    hit = metrics.from_ranks(ranks, np.ones(clients, bool))["hr@50"]
    assert hit == pytest.approx(50, abs=3)
    # Two items of one score beat each other equally often.
    other = np.asarray(
        jax.jit(jax.vmap(lambda c: rank_of(jnp.zeros(n_items), order(c), jnp.int32(8))))(
            jnp.arange(clients)
        )
    )
    assert (ranks < other).mean() == pytest.approx(0.5, abs=0.035)


@jax.jit
def top_and_ranks(values, key):
    """The top items, and the ranks of no item and then of every item."""
    order, items = tie_order(key, jnp.int32(1), len(values)), jnp.arange(-1, len(values))
    return top_items(values, order, 50), jax.vmap(lambda item: rank_of(values, order, item))(items)


@given(
    scores=st.sampled_from([1, 2, 7, 50, 51, 70]).flatmap(
        lambda n: st.lists(st.integers(0, 4), min_size=n, max_size=n)
    ),
    seed=st.integers(0, 1000),
)
def test_rank_and_top_items_agree_when_scores_tie(scores, seed):
    top, ranks = top_and_ranks(jnp.array(scores, jnp.float32), jax.random.key(seed))
    assert len(top) == 50
    assert ranks[0] == -1
    for item, rank in enumerate(ranks[1:].tolist()):
        assert rank >= 50 or top[rank] == item


def test_nan_scores_have_no_rank_and_train_items_are_never_at_the_top():
    simulation = worlds.simulation()
    state = moved(simulation)
    states = worlds.opened(simulation, state.private)
    head = {**states.head, "theta": states.head["theta"].at[0].set(jnp.nan)}
    private = worlds.closed(states._replace(head=head), like=state.private)
    state = state._replace(private=private)
    valid, _, top, *_ = evaluated(simulation, state)
    assert valid[0] == NOT_FINITE
    assert (top[0] == -1).all()
    for user, history in enumerate(worlds.histories(worlds.dataset())):
        assert not set(top[user].tolist()) & set(history.tolist())


def test_a_sample_of_clients_is_evaluated():
    simulation = worlds.simulation(eval_clients=5)
    valid, _, top, weights, relies = evaluated(simulation, moved(simulation))
    whole = worlds.simulation()
    all_valid, *_ = evaluated(whole, moved(whole))
    chosen = valid >= 0
    assert chosen.sum() == 5
    np.testing.assert_array_equal(valid[chosen], all_valid[chosen])
    for found in (weights, relies):
        np.testing.assert_array_equal(np.isfinite(found).all(axis=1), chosen)
    assert (top[~chosen] == -1).all()
