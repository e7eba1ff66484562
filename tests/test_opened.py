"""A finished run from its folder: what it wrote, and what its clients score, against each other."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import fedvlr_jax
from fedvlr_jax.client.flat import unflatten
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.data.split import split_clients
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.newcomers import join

SETTINGS = {
    "client_solver": "sgd",
    "data": "synthetic",
    "clients": 30,
    "items": 70,
    "history_length": 8,
    "views": "image,text,id",
    "dim": 8,
    "rounds": 4,
    "eval_every": 2,
    "local_epochs": 3,
    "client_lr": 0.3,
    "router_lr": 0.3,
    "server_lr": 0.1,
    "devices": 1,
    "buckets": 1,  # every one more is compiled, too
}
WAYS = {
    "fedvlr": {"devices": 2},
    "solved": {"client_solver": "exact", "client_lr": 3e-2, "devices": 2},
    "fcf": {"backbone": "fcf", "variant": "mlp", "views": None, "buckets": 2, "chunk": 3},
    "fedncf": {"backbone": "fedncf", "client_mode": "local", "eval_clients": 12, "cohort": 10},
    "pfedrec": {"backbone": "pfedrec", "negative_pool": 30, "devices": 2, "precision": "default"},
    "fedrap": {"backbone": "fedrap", "variant": "vbpr", "views": None, "negative_pool": 7},
    "host": {"private_state": "host", "cohort": 4, "wave": 3, "backbone": "pfedrec"}
    | {"variant": "id", "views": None},
}


def config(**settings):
    given = {name: value for name, value in (SETTINGS | settings).items() if value is not None}
    return fedvlr_jax.Config.of(**given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a way, trained once."""

    @functools.cache
    def train(way):
        return fedvlr_jax.train(config(**WAYS[way]), tmp_path_factory.mktemp(way) / "run").run

    return train


@pytest.fixture(scope="module", params=WAYS)
def run(request, trained):
    return trained(request.param)


def test_scores_rank_as_the_run_has_ranked(run):
    interactions, written = run.dataset.interactions, np.load(run.folder / "per_user.npz")
    ranked = np.load(run.folder / "rankings.npz")
    assert run.users["user"].tolist() == written["user"].tolist()
    np.testing.assert_array_equal(run.rankings, ranked["topk"])
    for row, user in enumerate(written["user"].tolist()):
        found, scores = run.user(user), run.scores(user)
        history = interactions.items[slice(*interactions.offsets[user : user + 2])]
        assert found.history.tolist() == history.tolist()
        assert np.flatnonzero(np.isneginf(scores)).tolist() == history.tolist()
        best = ranked["topk"][row]
        assert found.top(50).tolist() == best[best >= 0].tolist()
        assert (np.diff(scores[best[best >= 0]]) <= 0).all()
        target = interactions.test[user]
        if target >= 0:
            everything = found.top(interactions.n_items).tolist()
            assert everything.index(target) == written["rank"][row]
        np.testing.assert_array_equal(run.scores(user, [5, 3]), scores[[5, 3]])
        weights = dict(zip(written["views"], written["view_weights"][row], strict=True))
        assert found.view_weights == pytest.approx(weights, abs=1e-6)


def test_scores_are_those_of_the_views_and_the_private_state(run):
    model = run._simulation.federation.training.model
    if model.backbone.linear is None or model.backbone.own_rows is not None:
        pytest.skip("the rankings hold these")
    if run.config.method.client_solver == "exact":
        pytest.skip("heads are solved anew, and neighbours rank as well: tests/simulation")
    for user in (0, 7):
        state = run.private_state(user)
        theta, bias = model.backbone.linear(jax.tree.map(jnp.asarray, state.head))
        weights = np.array(list(run.user(user).view_weights.values()))
        vectors = np.einsum("ngd,g->nd", run.views(), weights)
        expected, scores = vectors @ theta + bias, run.scores(user)
        there = np.isfinite(scores)
        np.testing.assert_allclose(scores[there], expected[there], rtol=1e-4, atol=1e-5)


def test_private_states_are_those_of_the_checkpoint(run):
    best = Checkpoints(run.folder / "checkpoints").step(run.summary["best_round"])
    model = run._simulation.federation.training.model
    if run.config.execution.private_state == "host":
        rows = {}
        for path in sorted((best / "private").glob("*.clients.npy")):
            states = np.load(str(path).replace("clients", "states"))
            rows |= dict(zip(np.load(path).tolist(), states, strict=False))
        assert 0 < len(rows) < 30
        start = run._simulation.initial_state(run.config.schedule.seed).private
        rows = dict(enumerate(jax.device_get(start))) | rows
        tolerance = 1e-7  # beginnings are from another program
    else:
        like = run._simulation.state_shapes()
        state, _ = Checkpoints(run.folder / "checkpoints").load(run.summary["best_round"], like)
        rows = dict(enumerate(jax.device_get(state.private)))
        tolerance = 0
    for user in range(30):
        found = run.private_state(user)
        assert isinstance(found, ClientState)
        assert (found.router is None) == (run.config.method.variant != "fedvlr")
        assert (found.own is None) == (run.config.method.backbone not in ("pfedrec", "fedrap"))
        expected = unflatten(model, jnp.asarray(rows[user]))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), found, expected
        )


def test_what_was_written_is_read(run):
    lines = [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()]
    pd.testing.assert_frame_equal(run.curve, pd.DataFrame(lines))
    assert run.summary == json.loads((run.folder / "summary.json").read_text())
    stored = json.loads((run.folder / "config.json").read_text())
    assert run.config.flat() == {name: stored[name] for name in run.config.flat()}
    shares = run.users.filter(like="reliance/")
    assert list(shares) == ["reliance/image", "reliance/text", "reliance/id"]
    views = list(run.summary["composition"])
    assert list(run.users.filter(like="weight/")) == [f"weight/{view}" for view in views]
    assert run.views().shape == (70, len(views), 8)


@pytest.mark.parametrize("way", ["fedvlr", "pfedrec", "fedrap"])
def test_a_new_user_is_a_newcomer(way, tmp_path):
    """Ranks of the newcomers' held-out items, and a member's own id given to nobody."""
    members, joining = split_clients(generate(36, 70, 8, 0.3, seed=0), 0.11, seed=0)
    settings = config(**WAYS[way] | {"devices": 1})
    fedvlr_jax.train(settings, tmp_path / "run", dataset=members)
    run = fedvlr_jax.open_run(tmp_path / "run", data=members)
    data = joining.interactions
    lines = join(settings, run.folder, members, joining, rounds=3)
    hits = {split: [] for split in ("valid", "test")}
    for number in range(joining.interactions.n_clients):
        history = data.items[slice(*data.offsets[number : number + 2])]
        # The order and repeats of what a user gives mean nothing.
        found = run.new_user([*history[::-1], history[0]], epochs=9, number=number)
        assert found.client == 32 + number
        assert sum(found.view_weights.values()) == pytest.approx(1, abs=1e-5)
        everything = found.top(70).tolist()
        assert not set(everything) & set(history.tolist())
        assert len(everything) == 70 - len(history)
        assert found.scores(everything[:2]).tolist() == sorted(found.scores())[:-3:-1]
        for split, ranks in hits.items():
            target = getattr(data, split)[number]
            if target >= 0:
                ranks.append(everything.index(target))
    for split, ranks in hits.items():
        ranks = np.array(ranks)
        gains = np.where(ranks < 50, 1 / np.log2(ranks + 2), 0)
        assert lines[3][f"{split}/ndcg@50"] == pytest.approx(100 * gains.mean(), abs=1e-3)


@pytest.fixture(scope="module")
def plain(trained):
    return trained("fedvlr")


def test_mistakes_are_sentences(plain, tmp_path):
    for call, words in (
        (lambda: fedvlr_jax.open_run(tmp_path), r"no run \(config.json is missing\)"),
        (lambda: fedvlr_jax.open_run(3), "run=3: expected a folder"),
        (lambda: fedvlr_jax.open_run(plain.folder, data=tmp_path).dataset, "in a folder can have"),
        (lambda: plain.scores(30), "user=30: expected an id from 0 to 29"),
        (lambda: plain.private_state(-1), "user=-1: expected a whole number from 0"),
        (lambda: plain.scores(1, [70]), "items: expected a list of ids from 0 to 69"),
        (lambda: plain.scores(1, [0.5]), "items: expected a list of ids from 0 to 69"),
        (lambda: plain.new_user([]), "items: 0 different ones, expected 1 to 69"),
        (lambda: plain.new_user(range(70)), "items: 70 different ones, expected 1 to 69"),
        (lambda: plain.new_user([1], epochs=4), "epochs=4: expected a multiple of 3"),
        (lambda: fedvlr_jax.open_sweep(tmp_path), "holds no finished run"),
        (lambda: fedvlr_jax.open_sweep(tmp_path / "no"), "no: no such folder, expected the folder"),
        (lambda: plain.rounds_to("many"), "target='many': expected a number, found a str"),
        (lambda: plain.rounds_to(1, "ndcg@50"), "metric=ndcg@50: expected one of round, "),
    ):
        with pytest.raises(UserError, match=words):
            call()
    other = generate(30, 70, 8, 0.5, seed=9)
    with pytest.raises(UserError, match="has changed since"):
        fedvlr_jax.open_run(plain.folder, data=other).scores(1)


def test_without_its_checkpoint_a_run_has_its_files(plain, tmp_path):
    shutil.copytree(plain.folder, tmp_path / "run")
    Checkpoints(tmp_path / "run" / "checkpoints").thin("none", best=0)
    run = fedvlr_jax.open_run(tmp_path / "run")
    assert run.curve.equals(plain.curve)
    for call in (run.views, lambda: run.scores(1), lambda: run.private_state(1)):
        with pytest.raises(UserError, match=r"is not there, expected a run with .*keep_checkpoint"):
            call()


def test_a_sweep_is_its_finished_runs_by_name(plain, tmp_path):
    for name in ("b", "a", "unfinished"):
        shutil.copytree(plain.folder, tmp_path / "runs" / name)
    (tmp_path / "runs" / "unfinished" / "summary.json").unlink()
    runs = fedvlr_jax.open_sweep(tmp_path)
    assert list(runs) == ["a", "b"]
    assert runs["b"].summary == plain.summary
    with pytest.raises(UserError, match=r"runs has several, which fedvlr_jax.open_sweep opens"):
        fedvlr_jax.open_run(tmp_path)
    assert list(fedvlr_jax.open_sweep(plain.folder)) == ["run"]


def test_rounds_to_a_target_are_those_of_the_curve(plain):
    curve = plain.curve["valid/warm/ndcg@50"]
    assert plain.curve["round"].tolist() == [2, 4]
    assert plain.rounds_to(0) == 2
    assert plain.rounds_to(curve.max()) == plain.curve["round"][curve.argmax()]
    assert plain.rounds_to(curve.max() + 1) is None
    assert plain.rounds_to(1, "clients_trained") == 2
    assert (
        plain.rounds_to(0, "valid/cold/ndcg@50") is None
        or not plain.curve["valid/cold/ndcg@50"].isna().all()
    )
