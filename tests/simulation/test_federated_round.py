"""The vectorized round against the per-client loop, and against itself laid out differently."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.client.flat import unflatten
from fedvlr_jax.client.negatives import draw_pool
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.federated_round import federated_round, sent_by, train_cohort
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.sampling import choose_clients
from tests import oracle, worlds

ALL_VIEWS = "sum,mlp,gate,image,text,id"


@functools.cache
def _parts(federation):
    """The program of `one_round`, for all simulations that differ in data and rates only."""

    @jax.jit
    def parts(state, population, features, rates):
        cohort_key = keys.for_round(state.key, keys.COHORT, state.round)
        taking_part = choose_clients(
            cohort_key, population.client, federation.n_clients, federation.cohort
        )
        sent = sent_by(federation, state, features, rates)
        private, totals, _ = train_cohort(
            federation, sent, Private(state.private), population, taking_part, rates, state.key
        )
        total = jax.tree.map(lambda x: x[0], totals)
        found = aggregate.gathered(federation.server, state.server, features, total)
        mean = aggregate.mean_gradient(found)
        return total.loss / total.weight, mean, private.states, taking_part

    return parts


def one_round(simulation, state):
    """(loss, mean gradient of D and gamma, private state, who took part) of the next round."""
    parts = _parts(simulation.federation)
    return parts(state, simulation.population, simulation.features, simulation.rates)


@functools.cache
def _step(federation):
    return jax.jit(functools.partial(federated_round, federation))


def whole_round(simulation, state):
    """(state, what came of it) after the next round, as a run takes it."""
    step = _step(simulation.federation)
    return step(state, simulation.population, simulation.features, simulation.rates)


_unflatten = jax.jit(unflatten, static_argnums=0)
_draw_pool = jax.jit(draw_pool, static_argnums=(2, 3))


def client_state(simulation, private, client, history, pool, empty=0.0):
    """As the oracle has it: own item vectors in a table of all items."""
    row = np.asarray(private)[client]
    mine = jax.device_get(_unflatten(simulation.federation.training.model, row))
    own = None
    if mine.own is not None:
        slots = np.concatenate([pool, history])
        n_pool = simulation.federation.training.model.pool
        kept = np.r_[: len(pool), n_pool : n_pool + len(history)]
        shape = (simulation.federation.n_items, mine.own.vectors.shape[1])
        own = np.full(shape, empty, np.float32)
        own[slots] = mine.own.vectors[kept]
    return {"router": mine.router, "head": mine.head, "own": own}


def pools(simulation, key, histories):
    """Every client's pool of negatives, None where they are drawn from all items."""
    size, n_items = simulation.federation.training.model.pool, simulation.federation.n_items
    if not size:
        return None
    stream = keys.stream(key, keys.POOL)
    drawn = [
        np.asarray(_draw_pool(jax.random.fold_in(stream, c), history, n_items, size))
        for c, history in enumerate(histories)
    ]
    return [pool[pool < n_items] for pool in drawn]


def close(a, b, tolerance=1e-5):
    leaves_a, leaves_b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(leaves_a) == len(leaves_b) > 0
    for x, y in zip(leaves_a, leaves_b, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)


def moved(simulation, seed=3):
    """A state in which no parameter is at a special value (router outputs start at zero)."""
    state = simulation.initial_state(seed)
    rng = np.random.default_rng(seed)
    n = simulation.n_clients

    def shaken(leaf):
        noise = 0.3 * rng.standard_normal(leaf.shape, "f4")
        return jax.device_put(np.asarray(leaf) + noise, leaf.sharding)

    def shaken_clients(leaf):
        # The numbers must not depend on how many padding rows a layout has.
        noise = np.zeros(leaf.shape, "f4")
        noise[:n] = 0.3 * rng.standard_normal((n, *leaf.shape[1:]), "f4")
        return np.asarray(leaf) + noise

    params = jax.tree.map(shaken, state.server.params)
    states = jax.tree.map(shaken_clients, worlds.opened(simulation, state.private))
    private = worlds.closed(states, like=state.private)
    return state._replace(server=state.server._replace(params=params), private=private)


def test_a_run_takes_the_same_round():
    simulation = worlds.simulation(cohort=6)
    state = moved(simulation)
    loss, _, private, _ = one_round(simulation, state)
    after, (whole_loss, *_) = whole_round(simulation, state)
    close(after.private, private)
    close(float(whole_loss), float(loss))
    assert int(after.round) == 1
    assert int(after.diverged) == -1


PLAIN = [
    {"views": "sum,mlp,gate"},
    {"views": ALL_VIEWS, "cohort": 5},
    {"variant": "mlp"},
    {"variant": "vbpr", "cohort": 6},
    {"variant": "id", "cohort": 4},
]
OTHERS = [
    {"backbone": backbone, "variant": variant, "client_mode": mode, "negative_pool": pool}
    for backbone, pool in (("fcf", 0), ("fedncf", 0), ("pfedrec", 30), ("fedrap", 7))
    for mode, variant in (("accumulate", "fedvlr"), ("local", "vbpr"))
]
LOCAL = [{"client_mode": "local", "variant": variant} for variant in ("fedvlr", "id")]
DENSE = [
    {"views": "sum,mlp,gate", "scoring": "dense"},
    {"variant": "vbpr", "cohort": 4, "scoring": "dense", "negative_pool": 9},
]
EXPECTED = [
    {"negative_sampling": "expected"} | x
    for x in (
        {"views": "sum,mlp,gate", "scoring": "dense"},
        {"views": "sum,mlp,gate", "scoring": "sparse"},
        {"variant": "id", "negative_pool": 9, "scoring": "dense"},
        {"backbone": "fedncf", "variant": "mlp"},
        {"backbone": "fedrap", "negative_pool": 7},
        {"backbone": "pfedrec", "negative_pool": 30, "variant": "vbpr"},
        {"client_mode": "local", "variant": "fedvlr"},
    )
]
LONGEST = [LOCAL[0], OTHERS[3], OTHERS[7], EXPECTED[0]]
EXACT = [
    {"client_solver": "exact", "unobserved_weight": 2.0, "head_penalty": 0.5} | x
    for x in (
        {"views": "sum,mlp,gate", "cohort": 5},
        {"variant": "vbpr", "backbone": "fcf"},
        {"variant": "id", "head_penalty": 3.0, "unobserved_weight": 0.0},
        {"views": "image,id", "backbone": "fcf", "clip_norm": 1e6},
    )
]


@pytest.mark.parametrize(
    ("devices", "settings", "lengths"),
    [pytest.param(1, x, worlds.LENGTHS, marks=pytest.mark.slow) for x in PLAIN[:4]]
    + [(1, x, worlds.LENGTHS) for x in PLAIN[4:]]
    # The oracle compiles anew for every length.
    + [(8, x, (3, 7, 7, 3, 3, 7, 3, 3, 3)) for x in PLAIN[:4]]
    # These compile longest, and each of their parts is in another one.
    + [pytest.param(1, x, (7, 3, 3, 7, 3), marks=pytest.mark.slow) for x in LONGEST]
    + [(1, x, (7, 3, 3, 7, 3)) for x in LOCAL + OTHERS + EXPECTED + EXACT if x not in LONGEST]
    + [(8, x, (3, 7, 7, 3, 3, 7, 3, 3, 3)) for x in DENSE + EXPECTED[:1] + EXACT[:2]],
    ids=str,
)
def test_round_equals_the_loop_over_clients(devices, settings, lengths):
    data = worlds.dataset(lengths)
    histories = worlds.histories(data)
    simulation = worlds.simulation(
        data, devices=devices, chunk=2, buckets=1 + (devices > 1), **settings
    )
    federation, state = simulation.federation, moved(simulation)
    state = state._replace(round=state.round + 4)
    loss, mean, private, taking_part = one_round(simulation, state)
    chosen = np.flatnonzero(taking_part)
    assert len(chosen) == (settings.get("cohort", 0) or simulation.n_clients)

    round_key = keys.for_round(state.key, keys.CLIENT, 4)
    their_pools = pools(simulation, state.key, histories)

    def states(private):
        return [
            client_state(simulation, private, c, h, None if their_pools is None else their_pools[c])
            for c, h in enumerate(histories)
        ]

    expected_private, expected_mean, expected_loss = oracle.cohort_round(
        state.server.params._asdict(),
        states(state.private),
        {"image": data.catalogue.image, "text": data.catalogue.text},
        oracle.Method(
            federation.server.fusion.names,
            settings.get("backbone", "fedavg"),
            settings.get("variant", "fedvlr"),
            settings.get("client_mode", "accumulate"),
            round=4,
            expected=settings.get("negative_sampling") == "expected",
            exact=settings.get("client_solver") == "exact",
            epochs=federation.training.epochs,
            unobserved=settings.get("unobserved_weight", 0.0),
            penalty=settings.get("head_penalty", 0.0),
        ),
        histories,
        their_pools,
        chosen,
        [jax.random.fold_in(round_key, c) for c in range(simulation.n_clients)],
        {"head": 0.5, "router": 0.5, "own": 0.1, "shared": 0.2},
    )
    close(mean._asdict(), expected_mean)
    for found, expected, history, pool in zip(
        states(private), expected_private, histories, their_pools or histories, strict=True
    ):
        if expected["own"] is not None:  # other rows of the oracle's table have no slot
            others = np.setdiff1d(np.arange(len(expected["own"])), [*pool, *history])
            expected["own"][others] = 0
        close(found, expected)
    assert float(loss) == pytest.approx(expected_loss, abs=1e-5)
    moved_most = max(np.abs(leaf).max() for leaf in jax.tree.leaves(mean))
    assert moved_most > 1e-3, "a gradient of zeros would prove nothing"


def test_clients_outside_the_cohort_keep_their_state_bit_for_bit():
    simulation = worlds.simulation(cohort=4)
    state = moved(simulation)
    _, _, private, taking_part = one_round(simulation, state)
    same = (np.asarray(state.private) == np.asarray(private)).all(axis=1)
    np.testing.assert_array_equal(same, ~np.asarray(taking_part))


@functools.cache
def reference(cohort):
    simulation = worlds.simulation(cohort=cohort, chunk=3, buckets=2)
    return one_round(simulation, moved(simulation))


LAYOUTS = [
    {"chunk": 1},
    {"chunk": 64},
    {"buckets": 1},
    {"buckets": 13},
    {"devices": 3},
    {"devices": 8},
]


@pytest.mark.parametrize(
    ("cohort", "layout"), [(0, x) for x in LAYOUTS] + [(6, x) for x in LAYOUTS[::2]], ids=str
)
def test_layout_does_not_change_the_result(cohort, layout):
    loss, mean, private, chosen = reference(cohort)
    other = worlds.simulation(cohort=cohort, **layout)
    other_loss, other_mean, other_private, other_chosen = one_round(other, moved(other))
    n = other.n_clients
    np.testing.assert_array_equal(chosen[:n], other_chosen[:n])
    close(mean, other_mean)
    close(float(loss), float(other_loss))
    close(private[:n], other_private[:n])


def test_every_sampled_client_trains_even_if_all_share_one_bucket():
    # Twenty clients fit the wide bucket and two the narrow one, so every cohort of ten overfills
    # a share of the wide bucket in proportion to its chunk: nobody may be dropped.
    data = worlds.dataset(lengths=(2,) * 2 + (20,) * 20)
    simulation = worlds.simulation(data, cohort=10, buckets=2, chunk=2)
    assert len(simulation.federation.buckets) == 2
    state = simulation.initial_state(0)
    for number in range(8):
        key = keys.for_round(state.key, keys.COHORT, number)
        chosen = choose_clients(key, simulation.population.client, 22, 10)
        after, _ = whole_round(simulation, state)
        old, new = (np.asarray(s.private) for s in (state, after))
        np.testing.assert_array_equal((old != new).any(axis=1), np.asarray(chosen))
        assert chosen.sum() == 10
        state = after


def test_cohorts_are_uniform_over_clients():
    clients = jnp.arange(13)
    draw = jax.jit(
        jax.vmap(
            lambda number: choose_clients(
                keys.for_round(keys.from_seed(1), keys.COHORT, number), clients, 13, 5
            )
        )
    )
    rounds = 4000
    chosen = np.asarray(draw(jnp.arange(rounds)))
    assert (chosen.sum(axis=1) == 5).all()
    # Each client is in with probability 5/13; pairs with 5/13 * 4/12 (without replacement).
    p = 5 / 13
    spread = np.sqrt(p * (1 - p) / rounds)
    assert np.abs(chosen.mean(axis=0) - p).max() < 4.5 * spread
    together = (chosen.T.astype(float) @ chosen / rounds)[~np.eye(13, dtype=bool)]
    q = p * 4 / 12
    assert np.abs(together - q).max() < 5 * np.sqrt(q * (1 - q) / rounds)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_other_client_optimizers_start_anew_each_round(optimizer):
    simulation = worlds.simulation(client_optimizer=optimizer, client_lr=0.01, router_lr=0.01)
    state = simulation.initial_state(0)
    after, (loss, *_) = whole_round(simulation, state)
    assert np.isfinite(float(loss))
    # A first step of Adam (and of adagrad, nearly) has the size of its rate whatever the gradient.
    new, old = (worlds.opened(simulation, s.private).head["theta"] for s in (after, state))
    step = np.abs(np.asarray(new - old))
    assert 0.003 < np.median(step) < 0.031


def test_divergence_is_dated():
    simulation = worlds.simulation(client_lr=3e38, router_lr=0.0)
    state = simulation.initial_state(0)
    for _ in range(3):
        state, _ = whole_round(simulation, state)
    assert 1 <= int(state.diverged) <= 2


def test_private_starts_are_keyed_by_client_not_by_row():
    one, eight = (worlds.simulation(devices=devices) for devices in (1, 8))
    few, many = (simulation.initial_state(5).private for simulation in (one, eight))
    n = len(worlds.LENGTHS)
    close(few[:n], many[:n], tolerance=0)
    theta = np.asarray(worlds.opened(one, few).head["theta"])[:n]
    assert len(np.unique(theta, axis=0)) == n
