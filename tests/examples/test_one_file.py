"""examples/one_file.py against the package: same start, same negatives, a few rounds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import one_file
from fedvlr_jax.analysis.metrics import gains
from fedvlr_jax.client.flat import unflatten
from fedvlr_jax.client.negatives import sample_negatives
from fedvlr_jax.simulation import keys
from tests import worlds
from tests.simulation.test_evaluate import evaluated
from tests.simulation.test_federated_round import close, moved, whole_round

ROUNDS = 3
LENGTHS = (3, 7, 7, 3, 3, 3)  # every other one is compiled
# Clients' rates at which everything moves visibly. Adam makes a step of its whole rate even where a
# gradient is next to rounding error, so the server's is small.
SMALL = {"DIM": 8, "LOCAL_EPOCHS": 3, "NEGATIVES": 2}
SMALL |= {"HEAD_LR": 0.5, "ROUTER_LR": 0.5, "SERVER_LR": 0.003}


_unflatten = jax.jit(unflatten, static_argnums=0)
_sample = jax.jit(sample_negatives, static_argnums=(2, 3))


def server_params(state):
    """What the package's server has learned, as the example names it."""
    found = state.server.params.fusion["params"]
    maps = {
        view: {"kernel": found[view]["map"]["kernel"], **found[view]["norm_0"]}
        for view in ("image", "text", "id")
    }
    return {"D": found["item_embedding"], **maps}


def clients(simulation, state):
    """The package's private states, as the example names them."""
    found = []
    for row in np.asarray(state.private)[: simulation.n_clients]:
        mine = jax.device_get(_unflatten(simulation.federation.training.model, row))
        first, last = (mine.router["params"][layer] for layer in ("hidden", "out"))
        router = {"W1": first["kernel"], "b1": first["bias"]}
        router |= {"W2": last["kernel"], "b2": last["bias"]}
        head = {"theta": mine.head["theta"], "b": mine.head["bias"]}
        found.append({"router": router, "head": head})
    return found


def drawn_by_package(state, histories):
    """Every client's negatives in the next round, counted."""
    round_key = keys.for_round(state.key, keys.CLIENT, state.round)
    counts = []
    for client, history in enumerate(histories):
        key = jax.random.fold_in(round_key, client)
        items = [
            _sample(
                jax.random.fold_in(key, epoch), history, worlds.N_ITEMS, one_file.NEGATIVES
            ).ravel()
            for epoch in range(one_file.LOCAL_EPOCHS)
        ]
        counts.append(np.stack([np.bincount(x, minlength=worlds.N_ITEMS) for x in items]))
    return [x.astype("f4") for x in counts]


@pytest.fixture(scope="module")
def both():
    """(the package, its state, the example's server and clients) after some equal rounds."""
    data = worlds.dataset(LENGTHS)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(one_file, name, value)
        one_file.client_round.clear_cache()  # it was perhaps compiled with other rates
        found = trained(data)
    one_file.client_round.clear_cache()
    return found


def trained(data):
    simulation = worlds.simulation(
        data,
        dim=one_file.DIM,
        local_epochs=one_file.LOCAL_EPOCHS,
        negatives=one_file.NEGATIVES,
        server_lr=one_file.SERVER_LR,
        client_lr=one_file.HEAD_LR,
        router_lr=one_file.ROUTER_LR,
    )
    state = start = moved(simulation)
    features = {
        name: jnp.asarray(getattr(data.catalogue, name), jnp.float32) for name in ("image", "text")
    }
    items = worlds.histories(data)
    histories = [np.isin(np.arange(worlds.N_ITEMS), x).astype("f4") for x in items]
    params = server_params(state)
    server = one_file.new_server(np.random.default_rng(0), features)._replace(params=params)
    private, losses = clients(simulation, state), []
    for _ in range(ROUNDS):
        drawn = drawn_by_package(state, items)
        server, private, loss = one_file.federated_round(
            server, private, features, histories, drawn
        )
        state, (expected, *_) = whole_round(simulation, state)
        losses.append((loss, float(expected)))
    return simulation, (start, state), server, private, features, histories, losses


def test_the_server_learns_the_same(both):
    _, (start, state), server, *_ = both
    close(server.params, server_params(state))
    moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), server.params, server_params(start))
    assert min(jax.tree.leaves(moves)) > 0.005


def test_every_client_learns_the_same(both):
    simulation, (start, state), _, private, *_ = both
    close(private, clients(simulation, state))
    moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), private, clients(simulation, start))
    assert min(jax.tree.leaves(moves)) > 1e-3, "a smaller step would prove nothing"


def test_losses_are_the_same(both):
    losses = both[-1]
    np.testing.assert_allclose(*zip(*losses, strict=True), atol=1e-5)
    assert losses[-1][0] < losses[0][0]


def test_ndcg_is_the_same(both):
    simulation, (_, state), server, private, features, histories, _ = both
    ranks, tests = evaluated(simulation, state)[1], np.asarray(simulation.population.test)
    views = one_file.fuse(server.params, features)
    has = np.flatnonzero(tests[: simulation.n_clients] >= 0)
    found = [
        one_file.ndcg_at_50(private[u], views, histories[u], int(tests[u])) for u in has.tolist()
    ]
    np.testing.assert_allclose(found, gains(ranks[has], 50), atol=1e-6)
    assert len(set(found)) > 1


def test_negatives_are_uniform_over_what_a_client_has_not():
    rng = np.random.default_rng(0)
    history = np.array([1, 0, 1, 0, 0, 0], np.float32)
    drawn = np.stack([one_file.draw_negatives(rng, history) for _ in range(300)])
    assert drawn.shape[1:] == (one_file.LOCAL_EPOCHS, 6)
    assert (drawn.sum(axis=2) == 2 * one_file.NEGATIVES).all()
    np.testing.assert_allclose(drawn.mean(axis=(0, 1)), 2 * (history == 0), atol=0.2)


def test_the_program_learns_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(one_file, "ROUNDS", 3)
    monkeypatch.setattr(one_file, "N_CLIENTS", 30)
    one_file.main()
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"round \d: loss (0\.\d+), test NDCG@50 \d+\.\d+ %", x) for x in lines]
    losses = [float(line[1]) for line in found]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 3
