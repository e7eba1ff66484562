"""Warm rounds: the spectral first value against NumPy's, and runs that begin with it."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax.analysis.communication import WarmProtocol
from fedvlr_jax.client.left_out import without_own
from fedvlr_jax.errors import Stopped, UserError
from fedvlr_jax.fusion.operators import EMBEDDING
from fedvlr_jax.reporter import Silent
from fedvlr_jax.server.aggregate import Gathered
from fedvlr_jax.simulation.checkpoint import _as_tree
from fedvlr_jax.simulation.federated_round import (
    clients_half,
    federated_round,
    sent_by,
)
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.programs import round_of
from fedvlr_jax.simulation.run import train_together
from tests import worlds
from tests.simulation.test_federated_round import close
from tests.simulation.test_on_device import check_equal
from tests.simulation.test_run import assert_same_outcome

DATA = worlds.dataset()
DIM = 8
PRODUCTS = {"warm_basis": 24}
FORMS = pytest.mark.parametrize("form", [{}, PRODUCTS], ids=["pairs", "products"])


def warm(**settings):
    return {"warm_start": "spectral"} | settings


def histories(data):
    """X."""
    found = np.zeros((data.interactions.n_clients, data.interactions.n_items))
    for client, history in enumerate(worlds.histories(data)):
        found[client, history] = 1
    return found


def normalized(x):
    """C and P."""
    popularity = x.sum(axis=0)
    scale = np.where(popularity > 0, np.maximum(popularity, 1) ** -0.25, 0)
    return scale[:, None] * (x.T @ x) * scale, popularity


def first_embedding(x):
    """D D^T."""
    values, vectors = np.linalg.eigh(normalized(x)[0])
    rows = vectors[:, -DIM:] * np.sqrt(np.maximum(values[-DIM:], 0))
    rows /= np.linalg.norm(rows, axis=1).mean()
    return rows @ rows.T


def singular(x):
    """U, S and V^T of Y."""
    popularity = x.sum(axis=0)
    scale = np.where(popularity > 0, np.maximum(popularity, 1) ** -0.25, 0)
    return np.linalg.svd(x * scale, full_matrices=False)


def first_map(rows, embedding, known):
    """Ridge regression of D on feature rows, scaled."""
    fitted = rows[known].astype("f8")
    penalty = 10 * np.square(fitted).sum(axis=1).mean()
    gramian = fitted.T @ fitted + penalty * np.eye(rows.shape[1])
    found = np.linalg.solve(gramian, fitted.T @ embedding[known])
    return found / np.linalg.norm(rows @ found, axis=1).mean()


def after_rounds(simulation, rounds=1, seed=3):
    """The states before and after some rounds."""
    state, step = simulation.initial_state(seed), jax.jit(round_of(simulation.federation))
    before = jax.device_get(state)
    for _ in range(rounds):
        state, _ = step(state, simulation.population, simulation.features, simulation.rates)
    return before, jax.device_get(state)


def check_maps(state, simulation, data, known):
    """The maps of every modality are what D makes of them."""
    params = state.server.params.fusion["params"]
    embedding = np.asarray(params[EMBEDDING])
    for name in ("image", "text", "id"):
        kernel = np.asarray(params[name]["map"]["kernel"])
        expected = np.eye(DIM)
        if name != "id":
            rows = getattr(data.catalogue, name)
            expected = float(simulation.rates.server.content) * first_map(rows, embedding, known)
        copies = kernel.shape[1] // DIM
        assert copies == sum(
            name in view.reads for view in simulation.federation.server.fusion.views
        )
        np.testing.assert_allclose(kernel, np.tile(expected, copies), atol=1e-4)


@pytest.mark.parametrize(("devices", "layer_norm"), [(1, "off"), (8, "on")])
def test_pairs_give_the_leading_eigenvectors(devices, layer_norm):
    views = {"views": "sum,mlp,text", "layer_norm": layer_norm, "content_scale": 0.3 * devices}
    simulation = worlds.simulation(**warm(devices=devices, **views))
    before, after = after_rounds(simulation)
    x = histories(DATA)
    params = after.server.params.fusion["params"]
    embedding = params[EMBEDDING]
    np.testing.assert_allclose(embedding @ embedding.T, first_embedding(x), atol=1e-4)
    assert np.linalg.norm(embedding, axis=1).mean() == pytest.approx(1, abs=1e-5)
    check_maps(after, simulation, DATA, x.sum(axis=0) > 0)
    # For what comes after: X^T X, every client once.
    warmed = after.server.warmed
    np.testing.assert_array_equal(warmed.sums, x.T @ x)
    np.testing.assert_array_equal(warmed.popularity, x.sum(axis=0))
    np.testing.assert_allclose(warmed.eigenvalues, singular(x)[1][:DIM] ** 2, rtol=1e-4)
    # All else is as it was drawn.
    np.testing.assert_array_equal(after.private, before.private)
    close(after.server.optimizer, before.server.optimizer, 0)
    drawn = before.server.params.fusion["params"]
    for name in params.keys() - {EMBEDDING, "image", "text", "id"}:
        close(params[name], drawn[name], 0)
    if layer_norm == "on":
        for name in ("image", "text", "id"):
            close(params[name]["norm_0"], drawn[name]["norm_0"], 0)


def test_pairs_are_the_same_as_a_product_of_matrices():
    simulation, x = worlds.simulation(**warm(devices=2, buckets=2)), histories(DATA)
    federation, state = simulation.federation.warm, simulation.initial_state(3)
    training = dataclasses.replace(federation.training, dense=True)
    half = functools.partial(clients_half, dataclasses.replace(federation, training=training))
    arguments = simulation.population, simulation.features, simulation.rates
    _, uploaded = jax.jit(half)(state._replace(private=None), *arguments)
    np.testing.assert_array_equal(uploaded.totals.gradient[0], x.T @ x)


def test_pairs_of_several_cohorts_add_up():
    simulation = worlds.simulation(**warm(cohort=5, dropout=0.4, devices=2))
    federation = simulation.federation
    assert federation.warm_rounds == 3  # of 13 clients
    _, after = after_rounds(simulation, 3)
    x, state = histories(DATA), simulation.initial_state(3)
    came = [worlds.came(federation, state.key, jnp.int32(n), simulation.rates) for n in range(3)]
    assert {int(one.sum()) for one in came} != {5}
    of_all = np.concatenate([x[np.asarray(one)] for one in came])
    np.testing.assert_array_equal(after.server.warmed.sums, of_all.T @ of_all)
    embedding = after.server.params.fusion["params"][EMBEDDING]
    np.testing.assert_allclose(embedding @ embedding.T, first_embedding(of_all), atol=1e-4)
    check_maps(after, simulation, DATA, of_all.sum(axis=0) > 0)


def angle(found, expected):
    """The largest principal angle between two spaces, in degrees."""
    a, b = (np.linalg.qr(columns)[0] for columns in (found, expected))
    return np.degrees(np.arcsin(min(1, np.linalg.norm(a - b @ (b.T @ a), 2))))


@pytest.mark.parametrize(
    ("cohort", "devices", "rounds"),
    [
        (0, 8, 4),
        pytest.param(0, 1, 4, marks=pytest.mark.slow),
        (20, 1, 12),
        pytest.param(20, 2, 7, marks=pytest.mark.slow),
    ],
)
def test_products_come_to_the_same_space(cohort, devices, rounds):
    data = worlds.dataset(lengths=(9, 11, 7, 14, 12, 10) * 10, n_items=60)
    wanted = 0 if rounds in (4, 12) else rounds
    simulation = worlds.simulation(
        data, **warm(cohort=cohort, devices=devices, warm_basis=40, warm_rounds=wanted)
    )
    assert simulation.federation.warm_rounds == rounds
    _, after = after_rounds(simulation, rounds)
    x = histories(data)
    embedding = after.server.params.fusion["params"][EMBEDDING]
    _, vectors = np.linalg.eigh(normalized(x)[0])
    if not cohort:
        assert angle(embedding[:, : DIM // 2], vectors[:, -DIM // 2 :]) < 1
        check_maps(after, simulation, data, x.sum(axis=0) > 0)
        warmed, expected = after.server.warmed, singular(x)[1] ** 2
        np.testing.assert_array_equal(warmed.popularity, x.sum(axis=0))
        half = slice(DIM // 2)
        np.testing.assert_allclose(warmed.eigenvalues[half], expected[half], rtol=0.01)
    else:  # passes that do not meet every client once
        assert angle(embedding[:, :1], vectors[:, -1:]) < 20
    assert np.linalg.norm(embedding, axis=1).mean() == pytest.approx(1, abs=1e-5)
    # The last pass has just ended.
    assert not after.server.warmed.sums.any()
    sent = after.server.warmed.sent
    assert sent.shape == (60, 40)
    assert 0.1 < np.linalg.norm(sent, axis=1).mean() < 1


@pytest.mark.parametrize(("form", "devices"), [({}, 8), (PRODUCTS, 1)], ids=["pairs", "products"])
def test_what_is_sent_finds_what_a_client_has_added_to_embeddings(form, devices):
    settings = {"client_solver": "exact", "layer_norm": "off", "views": "text,id"}
    simulation = worlds.simulation(**warm(devices=devices, **settings, **form))
    _, state = after_rounds(simulation, simulation.federation.warm_rounds)
    sent = jax.jit(sent_by, static_argnums=0)(
        simulation.federation, state, simulation.features, simulation.rates
    )
    views, model = np.asarray(sent.views), simulation.federation.training.model
    x = histories(DATA)
    left, values, right = singular(x)
    # Singular vectors have no sign, and D has a scale.
    turned = np.linalg.lstsq(right[:DIM].T * values[:DIM], views[:, 1], rcond=None)[0]
    find = jax.jit(without_own, static_argnums=0)
    for client, history in enumerate(worlds.histories(DATA)):
        items = jnp.asarray(np.r_[history, np.full(20 - len(history), 40)])
        rows = sent.views.at[items].get(mode="clip")
        found = find(model, sent.least_squares, rows, items, items < 40)
        others = np.delete(np.arange(len(x)), client)
        having = x[others][:, history]
        scale = np.maximum(having.sum(axis=0), 1) ** -0.25
        expected = (having * scale).T @ left[others, :DIM] @ turned
        np.testing.assert_allclose(found[: len(history), 1], expected, atol=1e-4)
        np.testing.assert_array_equal(found[: len(history), 0], views[history, 0])


@FORMS
def test_where_nobody_comes_all_stays_as_drawn(form):
    simulation = worlds.simulation(**warm(dropout=0.999999, **form))
    before, after = after_rounds(simulation)
    close(after.server, before.server, 0)
    assert after.diverged == -1


@FORMS
def test_rounds_on_the_host_equal_those_on_the_devices(form, tmp_path):
    simulation = worlds.simulation(**warm(cohort=9, devices=2, buckets=2, warm_rounds=2, **form))
    here, there = OnDevice(simulation, [3]), OffDevice(simulation, 3, 6, tmp_path, 1, rounds=4)
    here.compile()
    there.compile()
    for _ in range(4):
        with jax.transfer_guard("disallow"):
            outcomes = here.round(), there.round()
        close(*outcomes)
        close(here.states.server, there.state.server, 1e-4)
        np.testing.assert_array_equal(here.runs[0].ranks("valid"), there.ranks("valid"))
    there.close()


def test_uploads_that_are_late_wait_for_a_round_that_trains():
    simulation = worlds.simulation(**warm(late=0.5, warm_rounds=2))
    federation, state = simulation.federation, simulation.initial_state(3)
    waiting = Gathered(
        jax.tree.map(lambda x: x + 1, state.late.gradient), jnp.float32(2), jnp.float32(3)
    )
    state = state._replace(late=waiting, private=None)
    arguments = simulation.population, simulation.features, simulation.rates
    after, outcome = jax.jit(functools.partial(federated_round, federation.warm))(state, *arguments)
    close(after.late, waiting, 0)
    assert int(outcome.participation.late) == 0
    assert int(outcome.participation.by_length.sum()) == 13


def config(**settings):
    standard = {
        "seed": 3,
        "rounds": 6,
        "eval_every": 2,
        "devices": 2,
        "cohort": 9,
        "warm_rounds": 3,
    }
    return worlds.config(**warm(**(standard | settings)))


@pytest.fixture(scope="module", params=["pairs", "products on the host"])
def whole(request, tmp_path_factory):
    form = {} if request.param == "pairs" else PRODUCTS | {"private_state": "host", "wave": 4}
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(config(**form), out, dataset=DATA), form


def test_a_run_that_stops_in_a_warm_round_ends_like_one_that_did_not(whole, tmp_path):
    finished, form = whole
    with pytest.raises(Stopped, match="after round 2"):
        fedvlr_jax.train(config(**form), tmp_path, worlds.StopAfter(2), dataset=DATA)
    fedvlr_jax.train(config(**form), tmp_path, dataset=DATA)
    assert_same_outcome(finished.out, tmp_path)


def test_it_is_evaluated_right_after_the_warm_rounds(whole):
    finished, _ = whole
    lines = [json.loads(line) for line in (finished.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [3, 4, 6]
    assert [line["train_loss"] is None for line in lines] == [True, False, False]
    assert [line["uploads_counted"] for line in lines] == [9, 9, 9]


def test_a_run_may_end_in_its_warm_rounds_and_go_on(tmp_path):
    short, other = tmp_path / "short", tmp_path / "whole"
    found = fedvlr_jax.train(config(rounds=2), short, dataset=DATA)
    assert found.summary["best_round"] == 2
    went_on = fedvlr_jax.train(config(rounds=6), short, dataset=DATA)
    whole = fedvlr_jax.train(config(rounds=6), other, dataset=DATA)
    lines = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (short, other)
    ]
    assert [[line["round"] for line in of] for of in lines] == [[2, 3, 4, 6], [3, 4, 6]]
    assert lines[0][-1]["valid/warm/ndcg@50"] == lines[1][-1]["valid/warm/ndcg@50"]
    assert went_on.summary["rounds_done"] == whole.summary["rounds_done"] == 6


def test_a_pass_over_many_small_cohorts_ends():
    data = worlds.dataset((5,) * 30)
    federation = worlds.simulation(data, **warm(cohort=1, als_passes=1)).federation
    assert [phase.server.warm.rounds for phase in federation.phases] == [10, 10]


def test_bytes_are_those_of_both_kinds_of_rounds(whole):
    finished, form = whole
    found = finished.summary["communication"]
    protocol = WarmProtocol(40, 24 if form else 0)
    rounds = {"warm": 27, "": 27}
    assert found["warm"]["download_bytes_per_client_round"] == protocol.download_bytes()
    down, up = (
        rounds[""] * found[f"{way}_bytes_per_client_round"]
        + rounds["warm"] * found["warm"][f"{way}_bytes_per_client_round"]
        for way in ("download", "upload")
    )
    assert found["download_bytes"] == down
    assert found["upload_bytes"] == pytest.approx(up)
    # Who came is known from the keys.
    simulation = worlds.simulation(**warm(cohort=9, warm_rounds=3, devices=2, **form))
    key = simulation.initial_state(3).key
    lengths = np.array(worlds.LENGTHS, float)
    numbers = lengths * 25 if form else lengths * (lengths + 1) / 2
    total = 0.0
    for number in range(3):
        came = worlds.came(simulation.federation, key, jnp.int32(number), simulation.rates)
        total += (4 * (lengths + numbers + 2))[np.asarray(came)].sum()
    assert found["warm"]["upload_bytes_per_client_round"] == pytest.approx(total / 27)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_runs_together_are_runs_alone(devices, tmp_path):
    settings = {"devices": devices, "dropout": 0.2, "private_state": "device", "cohort": 5}
    configs = [config(seed=seed, **settings) for seed in (3, 4)]
    outs = [tmp_path / str(k) for k in range(2)]
    # The first one has done its warm rounds before they come together.
    short = config(seed=3, rounds=4, **settings)
    fedvlr_jax.train(short, outs[0], dataset=DATA)
    found = train_together(configs, outs, [Silent()] * 2, [DATA] * 2)
    for k, (one, of) in enumerate(zip(found, configs, strict=True)):
        alone = fedvlr_jax.train(of, tmp_path / f"alone{k}", dataset=DATA)
        check_equal(one, alone, of)


def test_checkpoints_without_warm_rounds_are_like_those_of_before_there_were_any():
    for settings, there in ({}, False), (warm(), True):
        tree = _as_tree(worlds.simulation(**settings).initial_state(0))
        assert ("warmed" in tree["server"]) == there


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"warm_basis": 7}, "--warm_basis=7: expected 0, or at least the 8 columns that --dim"),
        ({"warm_basis": 41}, "--warm_basis=41: expected at most the 40 items there are"),
        ({"warm_start": "cold"}, "--warm_start=cold: expected one of none, spectral"),
    ],
    ids=str,
)
def test_mistakes_are_sentences(settings, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        fedvlr_jax.train(config(**settings), tmp_path, dataset=DATA)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"client_mode": "local", "backbone": "fedncf"},
        {"backbone": "pfedrec", "negative_pool": 10},
        {"client_solver": "exact", "clip_norm": 3.0, "noise_multiplier": 0.1, "variant": "vbpr"},
        {"dim": 48, "variant": "id", "modalities": "id"},
        {"aggregation": "mean", "availability_skew": 1.0, "gradient_noise": 0.1},
    ],
    ids=str,
)
def test_other_kinds_of_runs_begin_like_that_too(settings, tmp_path):
    found = fedvlr_jax.train(config(**settings), tmp_path, dataset=DATA)
    assert found.summary["rounds_done"] == 6
