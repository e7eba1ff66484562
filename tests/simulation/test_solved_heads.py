"""Whole runs of clients that solve for their heads: killed, in waves, together, joined."""

import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax.errors import UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.run import train_together
from tests import worlds
from tests.simulation.test_run import KillAfter, Killed, assert_same_outcome

DATA = worlds.dataset()
SOLVED = {"client_solver": "exact", "unobserved_weight": 2.0, "head_penalty": 0.5}


def config(**settings):
    standard = {"cohort": 9, "seed": 3, "rounds": 4, "devices": 2, "wave": 4}
    return worlds.config(**(SOLVED | standard | settings))


@pytest.fixture(scope="module", params=["device", "host"])
def whole(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(config(private_state=request.param), out, dataset=DATA), request.param


def test_a_killed_run_ends_like_one_that_was_not(whole, tmp_path):
    finished, place = whole
    with pytest.raises(Killed):
        fedvlr_jax.train(config(private_state=place), tmp_path, KillAfter(6), dataset=DATA)
    fedvlr_jax.train(config(private_state=place), tmp_path, dataset=DATA)
    assert_same_outcome(finished.out, tmp_path)


def test_states_on_the_host_make_no_difference(tmp_path):
    runs = [
        fedvlr_jax.train(config(private_state=place), tmp_path / place, dataset=DATA)
        for place in ("device", "host")
    ]
    for split in ("valid", "test"):
        here, there = (run.summary[split] for run in runs)
        assert here == pytest.approx(there, abs=1e-4)


def test_runs_with_other_numbers_share_a_program(tmp_path):
    numbers = [(2.0, 0.5), (0.1, 0.5), (2.0, 30.0)]
    configs = [
        config(unobserved_weight=unobserved, head_penalty=penalty, private_state="device")
        for unobserved, penalty in numbers
    ]
    outs = [tmp_path / str(k) for k in range(3)]
    found = train_together(configs, outs, [Silent()] * 3, [DATA] * 3)
    curves = [fedvlr_jax.open_run(run.out).curve["train_loss"].to_numpy() for run in found]
    assert np.abs(curves[0] - curves[1]).min() > 1e-4
    assert np.abs(curves[0] - curves[2]).min() > 1e-4
    alone = fedvlr_jax.train(configs[2], tmp_path / "alone", dataset=DATA)
    np.testing.assert_allclose(
        fedvlr_jax.open_run(alone.out).curve["train_loss"].to_numpy(), curves[2], rtol=1e-5
    )


def test_a_new_user_needs_no_training(whole):
    finished, _ = whole
    run = fedvlr_jax.open_run(finished.out, DATA)
    known = run.user(3)
    joined = run.new_user(known.history, epochs=0)
    views = run.views()
    weights = np.array([joined.view_weights[name] for name in joined.view_weights])
    vectors = np.einsum("ngd,g->nd", views, weights)
    n = len(known.history)
    matrix = vectors[known.history].T @ vectors[known.history]
    matrix += 2.0 * n / len(views) * vectors.T @ vectors + 0.5 * np.eye(vectors.shape[1])
    expected = vectors @ np.linalg.solve(matrix, vectors[known.history].sum(axis=0))
    outside = np.setdiff1d(np.arange(len(views)), known.history)
    np.testing.assert_allclose(joined.scores(outside), expected[outside], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "fedncf"}, "--client_solver=exact: solves for a linear head, which .*fedncf"),
        ({"backbone": "pfedrec"}, "--client_solver=exact: solves for a linear head"),
        ({"client_mode": "local"}, "--client_mode=local: clients step their copies"),
        ({"head_penalty": -1.0}, "head_penalty=-1.0: expected a finite number above 0"),
        ({"head_penalty": 0.0}, "head_penalty=0.0: expected a finite number above 0"),
        ({"unobserved_weight": -0.5}, "unobserved_weight=-0.5: expected a finite number of at"),
    ],
    ids=str,
)
def test_what_cannot_be_solved_is_a_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        config(**settings)
