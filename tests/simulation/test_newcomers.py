"""Clients that join after training, against the method's slow form and on a planted population."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax.data.split import split_clients
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.files import checksum
from fedvlr_jax.simulation import keys, newcomers
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.newcomers import fitted, join
from tests import oracle, worlds
from tests.simulation.test_federated_round import client_state, close, moved, pools


class EndedError(Exception):
    """What a test has heard enough by."""


ROUNDS = 2
WAYS = [
    {"cohort": 2},
    {"backbone": "fedncf", "variant": "id", "client_mode": "local"},
    {"backbone": "pfedrec", "negative_pool": 30, "devices": 2},
    {"backbone": "fedrap", "variant": "vbpr", "client_mode": "local", "negative_pool": 7},
]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_joining_is_training_alone_under_fixed_views(settings):
    data = worlds.dataset((3, 3, 3))
    histories = worlds.histories(data)
    simulation = worlds.simulation(data, chunk=2, buckets=1, **settings)
    federation, state = simulation.federation, moved(simulation)
    state = state._replace(round=state.round + 4)
    found, ranks, finite = fitted(
        federation,
        ROUNDS,
        state._replace(private=None),
        simulation.population,
        simulation.features,
        simulation.rates,
    )
    assert finite.tolist() == [True] * (ROUNDS + 1)
    initial = jnp.asarray(jax.device_get(simulation.initial_state(3).private))
    shared = jax.device_get(state.server.params._asdict())
    theirs = pools(simulation, state.key, histories) or [None] * len(histories)
    inputs = {"image": data.catalogue.image, "text": data.catalogue.text}
    rates = {"head": 0.5, "router": 0.5, "own": 0.1, "shared": 0.2}
    for client, (history, pool) in enumerate(zip(histories, theirs, strict=True)):
        expected = client_state(simulation, initial, client, history, pool)
        for number in range(4, 4 + ROUNDS):
            method = oracle.Method(
                federation.server.fusion.names,
                settings.get("backbone", "fedavg"),
                settings.get("variant", "fedvlr"),
                settings.get("client_mode", "accumulate"),
                # A static argument of the oracle, and only one backbone reads it.
                round=number if settings.get("backbone") == "fedrap" else 0,
            )
            key = jax.random.fold_in(keys.for_round(state.key, keys.CLIENT, number), client)
            expected, _, _ = oracle.client_round(
                shared, expected, inputs, method, history, pool, key, rates
            )
        if expected["own"] is not None:  # other rows of the oracle's table have no slot
            others = np.setdiff1d(np.arange(len(expected["own"])), [*pool, *history])
            expected["own"][others] = 0
        close(client_state(simulation, found.states, client, history, pool), expected)
        if pool is None:
            scores = np.array(oracle.all_scores(shared, expected, True, inputs, method, history))
            scores[history] = -np.inf
            for split, held_out in enumerate(data.interactions.held_out):
                rank = (scores > scores[held_out[client]]).sum() if held_out[client] >= 0 else -1
                assert ranks[-1, split, client] == rank


SETTINGS = {
    "views": "image,text,id",
    "dim": 16,
    "rounds": 20,
    "eval_every": 10,
    "client_lr": 0.1,
    "router_lr": 0.1,
    "buckets": 1,
}


@pytest.fixture(scope="module")
def planted():
    return split_clients(generate(90, 120, 16, 0.3, seed=0), 1 / 3, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, planted):
    out = tmp_path_factory.mktemp("members") / "run"
    fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=planted[0])
    return out


@pytest.fixture(scope="module")
def joined(run, planted):
    return join(worlds.config(**SETTINGS), run, *planted, rounds=8)


def test_newcomers_gain_from_fitting(joined):
    assert [line["round"] for line in joined] == list(range(9))
    assert [line["epochs"] for line in joined] == list(range(0, 27, 3))
    score = [line["valid/ndcg@50"] + line["test/ndcg@50"] for line in joined]
    assert min(score[1:]) > score[0]
    assert score[-1] > 1.4 * score[0]


def test_newcomers_fit_as_exactly_as_is_asked(run, planted, monkeypatch):
    stated = []

    def heard(*_):
        stated.append(jax.config.jax_default_matmul_precision)
        raise EndedError

    monkeypatch.setattr(newcomers, "fitted", heard)
    for precision in ("high", "default"):
        with pytest.raises(EndedError):
            join(worlds.config(**SETTINGS, precision=precision), run, *planted, rounds=1)
    assert stated == ["high", "default"]


def test_the_run_is_only_read_and_joining_repeats(run, planted, joined):
    def files():
        return {path: checksum(path) for path in run.rglob("*") if path.is_file()}

    before = files()
    assert join(worlds.config(**SETTINGS), run, *planted, rounds=8) == joined
    assert files() == before


def test_a_run_with_states_on_the_host_can_be_joined(tmp_path, planted, joined):
    config = worlds.config(**SETTINGS, private_state="host")
    fedvlr_jax.train(config, tmp_path / "run", dataset=planted[0])
    again = join(config, tmp_path / "run", *planted, rounds=8)
    for line, expected in zip(again, joined, strict=True):
        assert line == pytest.approx(expected, abs=1)


def test_what_cannot_be_joined_is_a_sentence(tmp_path, run, planted):
    members, newcomers = planted
    config = worlds.config(**SETTINGS)
    with pytest.raises(UserError, match="no finished run"):
        join(config, tmp_path, members, newcomers, rounds=1)
    with pytest.raises(UserError, match="a run on other data"):
        join(config, run, newcomers, members, rounds=1)
    with pytest.raises(UserError, match=r"--dim=8: the run in .* has 16, expected the same"):
        join(worlds.config(**SETTINGS | {"dim": 8}), run, members, newcomers, rounds=1)
    with pytest.raises(DivergedError, match=r"newcomers' round [12]: a parameter is not finite"):
        join(worlds.config(**SETTINGS | {"client_lr": 3e38}), run, members, newcomers, rounds=8)
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, symlinks=True)
    for checksums in damaged.glob("checkpoints/*/checksums.json"):
        checksums.unlink()
    with pytest.raises(
        UserError, match=r"the checkpoint is damaged .*; what the run has learned cannot be read"
    ):
        join(config, damaged, members, newcomers, rounds=1)
    Checkpoints(damaged / "checkpoints").thin("none", best=0)
    with pytest.raises(
        UserError, match=r"round \d+ is not there, expected a run with --keep_check"
    ):
        join(config, damaged, members, newcomers, rounds=1)
