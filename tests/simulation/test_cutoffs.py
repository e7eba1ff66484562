"""Runs that are measured at other K than the default ones."""

import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax import record
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation.run import check, default_out
from tests import worlds

SETTINGS = {"rounds": 6, "eval_every": 1, "seed": 3}
N_ITEMS = 70


@pytest.fixture(scope="module")
def data():
    return worlds.dataset(n_items=N_ITEMS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data):
    """Runs by their cutoffs, as they are written."""
    out = tmp_path_factory.mktemp("cutoffs")
    return {
        cutoffs: fedvlr_jax.train(
            worlds.config(**SETTINGS, cutoffs=cutoffs), out / cutoffs, None, data
        )
        for cutoffs in ("10,20,50", "1,3", "5,50,60")
    }


@pytest.mark.parametrize("asked", ["1,3", "5,50,60"])
def test_metrics_are_those_of_the_ranks(runs, asked):
    cutoffs = list(map(int, asked.split(",")))
    summary, opened = runs[asked].summary, runs[asked].run
    users = opened.users[opened.users["rank"] >= 0]
    for k in cutoffs:
        for group, chosen in (("", users), ("warm/", users[users["warm"]])):
            expected = 100 * np.mean([1 / np.log2(r + 2) if r < k else 0 for r in chosen["rank"]])
            assert summary["test"][f"{group}ndcg@{k}"] == pytest.approx(expected)
        assert f"gini@{k}" in summary["exposure"]
        assert f"valid/cold/mrr@{k}" in opened.curve
        assert f"warm/hr@{k}" in summary["popularity"]["valid"]
    assert not [name for name in opened.curve if name.endswith("@10")]


@pytest.mark.parametrize(("asked", "chosen"), [("1,3", 3), ("5,50,60", 50)])
def test_the_best_round_is_chosen_by_50_or_the_largest(runs, asked, chosen):
    curve = runs[asked].run.curve
    scores = curve[f"valid/warm/ndcg@{chosen}"]
    assert runs[asked].summary["best_round"] == curve["round"][scores.argmax()]
    assert runs[asked].run.rounds_to(scores.max()) == runs[asked].summary["best_round"]


def test_as_many_items_are_ranked_as_the_largest_k(runs):
    default, fewer, more = (runs[name].run for name in ("10,20,50", "1,3", "5,50,60"))
    assert [run.rankings.shape[1] for run in (default, fewer, more)] == [50, 50, 60]
    # With 50 among the cutoffs the same round is best, and its first 50 items are the same.
    np.testing.assert_array_equal(more.rankings[:, :50], default.rankings)
    for row, ranked in zip(more.users.itertuples(), more.rankings, strict=True):
        if 0 <= row.rank < 60:
            assert ranked[row.rank] >= 0
    assert record.rankings(more.folder)["topk"].shape == more.rankings.shape


def test_a_run_stops_at_a_target_of_its_cutoffs(runs, data, tmp_path):
    curve = runs["1,3"].run.curve
    goal = curve["valid/hr@3"].max()
    config = worlds.config(**SETTINGS, cutoffs="1,3", target=f"valid/hr@3:{goal}")
    found = fedvlr_jax.train(config, tmp_path / "run", None, data)
    assert found.summary["to_target"]["round"] == curve["round"][curve["valid/hr@3"].argmax()]


def test_a_run_with_other_cutoffs_is_another_run(runs, data):
    configs = [worlds.config(**SETTINGS, cutoffs=cutoffs) for cutoffs in ("1,3", "5,50,60")]
    assert default_out(configs[0]) != default_out(configs[1])
    with pytest.raises(
        UserError, match=r"another configuration's run \(--cutoffs was 1,3, now 5,50"
    ):
        fedvlr_jax.train(configs[1], runs["1,3"].out, None, data)


def test_a_k_above_the_number_of_items_is_refused_before_training(data, tmp_path):
    config = worlds.config(cutoffs="5,71")
    for refused in (
        lambda: fedvlr_jax.train(config, tmp_path / "run", None, data),
        lambda: check(config, data),
    ):
        with pytest.raises(UserError, match=r"--cutoffs=5,71: expected at most the 70 items"):
            refused()
    assert not (tmp_path / "run").exists()
