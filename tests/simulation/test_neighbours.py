"""Runs that rank by neighbours as well: beside a loop over clients, killed, together, joined."""

import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax.errors import UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.run import train_together
from fedvlr_jax.simulation.traced import program_of
from tests import worlds
from tests.client.test_experts import standardized
from tests.simulation.test_run import KillAfter, Killed, assert_same_outcome
from tests.simulation.test_warm_start import histories

# Enough clients for every two weights to differ, so that the largest are no matter of rounding.
DATA = worlds.dataset(lengths=(9, 11, 1, 14, 12, 10) * 4)
SHARE, PENALTY, KEPT = 0.6, 3.0, 12
SETTINGS = {
    "warm_start": "spectral",
    "experts": "neighbours",
    "expert_weight": SHARE,
    "neighbour_penalty": PENALTY,
    "neighbours": KEPT,
    "client_solver": "exact",
    "unobserved_weight": 2.0,
    "head_penalty": 0.5,
    "layer_norm": "off",
    "views": "text,id",
    "seed": 3,
    "rounds": 3,
    "eval_every": 1,
}


def config(**settings):
    return worlds.config(**(SETTINGS | settings))


def by_neighbours():
    """Every client's scores: EASE of which every item keeps its largest weights."""
    x = histories(DATA)
    inverse = np.linalg.inv(x.T @ x + PENALTY * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    for row in weights:
        row[np.argsort(np.abs(row))[:-KEPT]] = 0
    return x @ weights


def expected_scores(run, history, view_weights, others):
    """Those of a head that is solved for and of neighbours, each standardized."""
    vectors = np.einsum("ngd,g->nd", run.views().astype("f8"), view_weights)
    matrix = vectors[history].T @ vectors[history]
    matrix += 2.0 * len(history) / len(vectors) * vectors.T @ vectors
    matrix += 0.5 * np.eye(vectors.shape[1])
    by_head = vectors @ np.linalg.solve(matrix, vectors[history].sum(axis=0))
    return standardized(by_head) + SHARE * standardized(others)


LAYOUTS = {
    "one device": {"devices": 1},
    "eight devices": {"devices": 8, "chunk": 1},
    "states on the host": {"devices": 2, "private_state": "host", "wave": 4},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def whole(request, tmp_path_factory):
    layout = LAYOUTS[request.param]
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(config(**layout), out, dataset=DATA), layout


def test_rankings_are_those_of_a_loop_over_clients(whole):
    run = fedvlr_jax.open_run(whole[0].out, DATA)
    weights = run.users[["weight/text", "weight/id"]].to_numpy()
    scores, everybody = by_neighbours(), worlds.histories(DATA)
    for client, history in enumerate(everybody):
        expected = expected_scores(run, history, weights[client], scores[client])
        outside = np.setdiff1d(np.arange(40), history)
        ranking = outside[np.argsort(-expected[outside])]
        assert run.rankings[client, : len(outside)].tolist() == ranking.tolist()
        if client % 8 == 0:
            found = run.user(client).scores(outside)
            np.testing.assert_allclose(found, expected[outside], atol=1e-4)


def test_a_new_user_is_scored_in_the_same_way(whole):
    run = fedvlr_jax.open_run(whole[0].out, DATA)
    history = worlds.histories(DATA)[3]
    joined = run.new_user(history, epochs=0)
    weights = np.array([joined.view_weights[name] for name in ("text", "id")])
    expected = expected_scores(run, np.sort(history), weights, by_neighbours()[3])
    outside = np.setdiff1d(np.arange(40), history)
    np.testing.assert_allclose(joined.scores(outside), expected[outside], atol=1e-4)


def test_a_killed_run_ends_like_one_that_was_not(whole, tmp_path):
    finished, layout = whole
    with pytest.raises(Killed):
        fedvlr_jax.train(config(**layout), tmp_path, KillAfter(5), dataset=DATA)
    fedvlr_jax.train(config(**layout), tmp_path, dataset=DATA)
    assert_same_outcome(finished.out, tmp_path)


def test_neighbours_are_counted_once(whole):
    sent = whole[0].summary["communication"]
    assert sent["neighbours_bytes_per_client"] == 40 * KEPT * 8
    each, warm = (
        part["download_bytes_per_client_round"] * rounds
        for part, rounds in ((sent, 2 * 24), (sent["warm"], 24))
    )
    assert sent["download_bytes"] == each + warm


def test_runs_with_other_numbers_share_a_program(tmp_path):
    numbers = {"expert_weight": 2.0, "neighbour_penalty": 0.5, "content_scale": 0.3}
    configs = [config(private_state="device", rounds=2, **x) for x in ({}, numbers)]
    assert program_of(configs[0]) == program_of(configs[1])
    outs = [tmp_path / str(k) for k in range(2)]
    found = train_together(configs, outs, [Silent()] * 2, [DATA] * 2)
    alone = fedvlr_jax.train(configs[1], tmp_path / "alone", dataset=DATA)
    assert found[1].summary["test"] == pytest.approx(alone.summary["test"])
    first, second, same = (fedvlr_jax.open_run(run.out, DATA) for run in (*found, alone))
    assert (first.rankings != second.rankings).any()
    np.testing.assert_array_equal(second.rankings, same.rankings)
    np.testing.assert_allclose(second.user(0).scores(), same.user(0).scores(), atol=1e-4)


def test_a_run_without_neighbours_says_nothing_of_them(tmp_path):
    run = fedvlr_jax.train(config(experts="none", rounds=1), tmp_path, dataset=DATA)
    assert "neighbours_bytes_per_client" not in run.summary["communication"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"warm_start": "none"}, "--experts=neighbours: needs the items' co-occurrence .* without"),
        ({"warm_basis": 24}, "--experts=neighbours: needs the items' co-occurrence .* without"),
        ({"experts": "friends"}, "--experts=friends: expected one of auto, none, neighbours"),
        ({"neighbours": 0}, "--neighbours=0: expected a whole number from 1"),
        ({"neighbour_penalty": 0.0}, "neighbour_penalty=0.0: expected a finite number above 0"),
        ({"expert_weight": -1.0}, "expert_weight=-1.0: expected a finite number of at least 0"),
        ({"content_scale": -1.0}, "content_scale=-1.0: expected a finite number of at least 0"),
    ],
    ids=str,
)
def test_mistakes_are_sentences(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        config(**settings)
