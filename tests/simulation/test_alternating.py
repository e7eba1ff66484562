"""Passes of alternating least squares against NumPy's, and runs that have some."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax import record
from fedvlr_jax.analysis.communication import AlternatingProtocol
from fedvlr_jax.client.left_out import without_own
from fedvlr_jax.errors import Stopped, UserError
from fedvlr_jax.fusion.operators import EMBEDDING
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.federated_round import (
    clients_half,
    federated_round,
    sent_by,
)
from fedvlr_jax.simulation.newcomers import fitted
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.run import train_together
from fedvlr_jax.simulation.simulation import build
from tests import worlds
from tests.simulation.test_federated_round import close
from tests.simulation.test_on_device import check_equal
from tests.simulation.test_run import assert_same_outcome
from tests.simulation.test_warm_start import after_rounds, histories

DATA = worlds.dataset()
X = histories(DATA)
DIM = 8
UNOBSERVED, PENALTY, ITEM_PENALTY = 3.0, 0.7, 0.05
NUMBERS = {
    "unobserved_weight": UNOBSERVED,
    "head_penalty": PENALTY,
    "item_penalty": ITEM_PENALTY,
}


def passes(number=2, **settings):
    return {"warm_start": "spectral", "als_passes": number} | NUMBERS | settings


def heads(x, embedding):
    """Every client's head for D, 0 without a history."""
    found, gramian = np.zeros((len(x), DIM)), embedding.T @ embedding
    for client, has in enumerate(x > 0):
        rows = embedding[has]
        matrix = rows.T @ rows + UNOBSERVED * has.sum() / x.shape[1] * gramian
        found[client] = np.linalg.solve(matrix + PENALTY * np.eye(DIM), rows.sum(axis=0))
    return found


def equations(x, queries):
    """Matrix and right-hand side of every item."""
    everything = sum(
        UNOBSERVED * has.sum() / x.shape[1] * np.outer(q, q)
        for has, q in zip(x, queries, strict=True)
    )
    strength = x.sum(axis=0) + UNOBSERVED / x.shape[1] * x.sum()
    for has, weight in zip(x.T > 0, strength, strict=True):
        matrix = queries[has].T @ queries[has] + everything
        yield matrix + ITEM_PENALTY * weight * np.eye(DIM), queries[has].sum(axis=0)


def solved(x, before):
    """D after a pass."""
    rows = [np.linalg.solve(*system) for system in equations(x, heads(x, before))]
    return np.where(x.any(axis=0)[:, None], rows, before)


def embedding_of(state):
    return np.asarray(state.server.params.fusion["params"][EMBEDDING], "f8")


@functools.cache
def first(**settings):
    """D of the spectral start, and the state after it."""
    simulation = worlds.simulation(**passes(**settings))
    return after_rounds(simulation, 1)[1]


@pytest.mark.parametrize("devices", [1, 8])
def test_heads_and_items_are_solved_in_turn(devices):
    settings = {"devices": devices, "views": "sum,mlp,text", "content_scale": 0.3}
    simulation = worlds.simulation(**passes(2, **settings))
    assert simulation.federation.warm_rounds == 3
    expected = embedding_of(first(**settings))
    before, after = after_rounds(simulation, 3)
    for _ in range(2):
        queries, expected = heads(X, expected), solved(X, expected)
    np.testing.assert_allclose(embedding_of(after), expected, atol=2e-5)
    # Every map has followed; a content view is as long as D, times its scale.
    params = after.server.params.fusion["params"]
    rows = DATA.catalogue.text @ np.asarray(params["text"]["map"]["kernel"])[:, :DIM]
    norms = [np.linalg.norm(found, axis=1).mean() for found in (rows, expected)]
    assert norms[0] == pytest.approx(0.3 * norms[1], rel=1e-4)
    # For what comes after.
    mean = (queries * X.sum(axis=1)[:, None]).T @ queries / X.sum()
    inverse = np.linalg.inv(mean + ITEM_PENALTY * np.eye(DIM))
    np.testing.assert_allclose(after.server.warmed.solved.inverse, inverse, rtol=1e-3, atol=1e-3)
    strength = X.sum(axis=0) + UNOBSERVED / 40 * X.sum()
    np.testing.assert_allclose(after.server.warmed.solved.strength, strength, rtol=1e-5)
    np.testing.assert_array_equal(after.private, before.private)
    close(after.server.optimizer, before.server.optimizer, 0)


def test_sums_of_several_cohorts_add_up():
    simulation = worlds.simulation(**passes(1, cohort=5, dropout=0.4, devices=2))
    federation, state = simulation.federation, simulation.initial_state(3)
    assert federation.warm_rounds == 6  # three for either pass over 13 clients
    _, before = after_rounds(simulation, 3)
    _, after = after_rounds(simulation, 6)
    came = [worlds.came(federation, state.key, jnp.int32(n), simulation.rates) for n in range(3, 6)]
    x = np.concatenate([X[np.asarray(one)] for one in came])
    assert not x.any(axis=0).all()  # what nobody has stays
    np.testing.assert_allclose(embedding_of(after), solved(x, embedding_of(before)), atol=2e-5)
    assert not after.server.warmed.equations.any()


def test_where_nobody_comes_all_stays():
    simulation = worlds.simulation(**passes(1, dropout=0.999999))
    before, after = after_rounds(simulation, 2)
    close(after.server.params, before.server.params, 0)
    assert after.diverged == -1


@pytest.mark.parametrize("devices", [1, 8])
def test_what_is_sent_finds_about_what_a_client_has_added(devices):
    data = worlds.dataset((6, 9, 5, 12, 7, 8) * 8, n_items=60)
    x = histories(data)
    settings = {"client_solver": "exact", "layer_norm": "off", "views": "text,id"}
    simulation = worlds.simulation(data, **passes(2, devices=devices, **settings))
    _, before = after_rounds(simulation, 2)
    _, state = after_rounds(simulation, 3)
    sent = jax.jit(sent_by, static_argnums=0)(
        simulation.federation, state, simulation.features, simulation.rates
    )
    embedding, queries = embedding_of(state), heads(x, embedding_of(before))
    systems = list(equations(x, queries))
    find = jax.jit(functools.partial(without_own, simulation.federation.training.model))
    errors, sizes, cosines = [], [], []
    for client, history in enumerate(worlds.histories(data)):
        items = jnp.asarray(np.r_[history, np.full(20 - len(history), 60)])
        rows = sent.views.at[items].get(mode="clip")
        found = np.asarray(find(sent.least_squares, rows, items, items < 60))[: len(history)]
        np.testing.assert_array_equal(found[:, 0], rows[: len(history), 0])
        query = queries[client]
        for item, other in zip(history, found[:, 1], strict=True):
            matrix, right = systems[item]
            without = matrix - np.outer(query, query) - ITEM_PENALTY * np.eye(DIM)
            exact = embedding[item] - np.linalg.solve(without, right - query)
            own = embedding[item] - other
            errors.append(np.linalg.norm(own - exact))
            sizes.append(np.linalg.norm(exact))
            cosines.append(own @ exact / np.linalg.norm(own) / np.linalg.norm(exact))
    # It is an estimate, but no small part of it is wrong.
    assert np.sum(errors) < 0.45 * np.sum(sizes)
    assert np.mean(cosines) > 0.9


def test_nothing_of_newcomers_is_taken_out_of_embeddings():
    settings = {"client_solver": "exact", "layer_norm": "off", "views": "text,id"}
    simulation = worlds.simulation(**passes(1, **settings))
    plain = worlds.simulation(**settings, **NUMBERS)
    _, state = after_rounds(simulation, 2)
    server = plain.initial_state(3).server._replace(params=state.server.params)
    found, expected = (
        fitted(
            one.federation,
            2,
            of._replace(private=None),
            one.population,
            one.features,
            one.rates,
        )[0]
        for one, of in ((simulation, state), (plain, state._replace(server=server)))
    )
    close(found.states, expected.states, 1e-6)


def test_an_upload_has_the_history_and_nothing_else():
    simulation = worlds.simulation(**passes(1))
    state = first()._replace(private=None)
    half = jax.jit(functools.partial(clients_half, simulation.federation.warm))
    _, uploaded = half(state, simulation.population, simulation.features, simulation.rates)
    totals = uploaded.totals
    queries = heads(X, embedding_of(state))
    upper = np.triu_indices(DIM)
    numbers = [np.r_[q, np.outer(q, q)[upper], 1] for q in queries]
    np.testing.assert_allclose(totals.gradient[0], X.T @ numbers, atol=2e-5)
    assert float(totals.weight[0]) == 13
    assert totals.shared is None
    assert totals.squares is None


def test_rounds_on_the_host_equal_those_on_the_devices(tmp_path):
    settings = {"cohort": 9, "devices": 2, "buckets": 2, "client_solver": "exact"}
    simulation = worlds.simulation(**passes(1, **settings))
    rounds = simulation.federation.warm_rounds + 2
    here = OnDevice(simulation, [3])
    there = OffDevice(simulation, 3, 6, tmp_path, 1, rounds=rounds)
    here.compile()
    there.compile()
    for _ in range(rounds):
        with jax.transfer_guard("disallow"):
            outcomes = here.round(), there.round()
        close(*outcomes)
        close(here.states.server, there.state.server, 1e-4)
        np.testing.assert_array_equal(here.runs[0].ranks("valid"), there.ranks("valid"))
    there.close()


def config(**settings):
    standard = {"seed": 3, "rounds": 8, "eval_every": 2, "devices": 2, "cohort": 7}
    return worlds.config(**passes(**(standard | settings)))


@pytest.fixture(
    scope="module",
    params=[
        {"private_state": "device"},
        # Such embeddings are nearly nothing.
        {"private_state": "host", "wave": 4, "item_penalty": 1e6},
    ],
    ids=["kept", "undone"],
)
def whole(request, tmp_path_factory):
    form = {"client_solver": "exact", "layer_norm": "off"} | request.param
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(config(**form), out, dataset=DATA), form


@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_a_run_that_stops_in_a_pass_ends_like_one_that_did_not(whole, rounds, tmp_path):
    finished, form = whole
    with pytest.raises(Stopped, match=f"after round {rounds}"):
        fedvlr_jax.train(config(**form), tmp_path, worlds.StopAfter(rounds), dataset=DATA)
    fedvlr_jax.train(config(**form), tmp_path, dataset=DATA)
    assert_same_outcome(finished.out, tmp_path)


def test_a_run_that_ended_in_a_pass_goes_on_as_if_it_had_not(whole, tmp_path):
    finished, form = whole
    short = fedvlr_jax.train(config(**form, rounds=4), tmp_path, dataset=DATA)
    assert short.summary["als_kept"] is None
    longer = fedvlr_jax.train(config(**form), tmp_path, dataset=DATA)
    for name in ("als_kept", "test", "router", "participation"):
        assert longer.summary[name] == finished.summary[name]


def test_passes_stay_where_they_raise_the_validation_score(whole):
    finished, form = whole
    before, after, _ = (line["valid/warm/ndcg@50"] for line in record.evaluations(finished.out))
    assert finished.summary["als_kept"] == (after > before) == ("item_penalty" not in form)


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_after_passes_that_are_undone_a_run_goes_on_from_its_spectral_start(seeds):
    settings = {"client_solver": "exact", "layer_norm": "off", "views": "text,id"}
    configs = [worlds.config(**passes(2, seed=seed, devices=2, **settings)) for seed in seeds]
    trainer = OnDevice(build(configs[0], DATA, [(one, DATA) for one in configs[1:]]), seeds)
    trainer.compile()
    trainer.round()
    run = trainer.runs[-1]
    started = run.copy()
    for _ in range(2):
        trainer.round()
    assert run.state.server.warmed.solved.strength.any()
    run.undo_passes()
    undone = run.copy()
    close(undone.server.params, started.server.params, 0)
    close(undone.private, started.private, 0)
    trainer.round()  # in place, with what was undone
    # The clients' part in embeddings is that in a spectral start again, too.
    plain = worlds.simulation(**passes(0, seed=seeds[-1], devices=2, **settings))
    expected = after_rounds(plain, 1, seeds[-1])[1]
    step = jax.jit(functools.partial(federated_round, plain.federation))
    expected, _ = step(
        expected._replace(round=undone.round), plain.population, plain.features, plain.rates
    )
    close(run.state.server.params, expected.server.params, 1e-5)
    close(run.state.private[:13], expected.private[:13], 1e-5)


def test_bytes_are_those_of_every_kind_of_rounds(whole):
    finished, _ = whole
    lines = record.evaluations(finished.out)
    assert [line["round"] for line in lines] == [2, 6, 8]
    found = finished.summary["communication"]
    protocol = AlternatingProtocol(40, DIM)
    assert found["als"]["download_bytes_per_client_round"] == protocol.download_bytes()
    simulation, total = worlds.simulation(**passes(cohort=7)), 0.0
    key = simulation.initial_state(3).key
    for number in range(2, 6):
        came = worlds.came(simulation.federation, key, jnp.int32(number), simulation.rates)
        lengths = np.array(worlds.LENGTHS, float)[np.asarray(came)]
        total += (lengths * (1 + DIM + DIM * (DIM + 1) / 2 + 1) + 2).sum() * 4
    assert found["als"]["upload_bytes_per_client_round"] == pytest.approx(total / 28)
    down, up = (
        sum(
            rounds * part[f"{way}_bytes_per_client_round"]
            for rounds, part in ((14, found["warm"]), (28, found["als"]), (14, found))
        )
        for way in ("download", "upload")
    )
    assert found["download_bytes"] == down
    assert found["upload_bytes"] == pytest.approx(up)


def test_runs_together_are_runs_alone(tmp_path):
    settings = {"dropout": 0.2, "private_state": "device", "client_solver": "exact"}
    configs = [config(seed=seed, **settings) for seed in (3, 4)]
    outs = [tmp_path / str(k) for k in range(2)]
    # The first one is in another kind of round when they come together.
    with pytest.raises(Stopped):
        fedvlr_jax.train(configs[0], outs[0], worlds.StopAfter(3), dataset=DATA)
    found = train_together(configs, outs, [Silent()] * 2, [DATA] * 2)
    for k, (one, of) in enumerate(zip(found, configs, strict=True)):
        alone = fedvlr_jax.train(of, tmp_path / f"alone{k}", dataset=DATA)
        check_equal(one, alone, of)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"warm_start": "none"}, "--als_passes=2: goes on from a spectral start, expected"),
        ({"als_passes": -1}, "--als_passes=-1: expected a whole number from 0"),
        ({"item_penalty": -0.1}, "--item_penalty=-0.1: expected"),
    ],
    ids=str,
)
def test_mistakes_are_sentences(settings, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        fedvlr_jax.train(config(**settings), tmp_path, dataset=DATA)
