"""What it takes to reach an accuracy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedvlr_jax
from fedvlr_jax import record, targets
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from tests import worlds

METRIC = "valid/warm/ndcg@50"


def line(number, value, metric=METRIC):
    return {
        "round": number,
        "client_updates": 7 * number,
        "download_bytes": 1000 * number,
        "upload_bytes": 100.0 * number,
        "seconds": 0.5 * number,
        metric: value,
    }


@pytest.mark.parametrize(
    "text",
    [
        "warm/ndcg@50:3",
        "valid/mrr:3",
        "valid/ndcg@50",
        "valid/ndcg@50:",
        "valid/ndcg@50:0",
        "valid/ndcg@50:-3",
        "valid/ndcg@50:nan",
        "valid/ndcg@50:100.5",
        "valid/ndcg@50:1.1max",
        "valid/ndcg@50:max",
        "valid/ndcg@50:0.9:max",
        "valid/ndcg@0:3",
        "valid/map@50:3",
        "valid/lukewarm/ndcg@50:3",
    ],
)
def test_what_is_no_target_is_a_sentence(text):
    assert targets.parsed(text) is None
    with pytest.raises(UserError, match="expected a metric of the validation split and a value"):
        Config.of(target=text)


@given(
    values=st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=12),
    share=st.floats(0.01, 1),
)
def test_costs_are_those_of_the_first_line_that_is_there(values, share):
    lines = [line(k, value) for k, value in enumerate(values, 1)]
    target = targets.Target(METRIC, share, relative=True)
    known = [value for value in values if value is not None]
    assert target.best(lines) == max(known, default=None)
    (found,) = target.costs_of({"run": lines}).values()
    assert found["spent/round"] == len(values)
    if not known:
        assert found["goal"] is None
        assert not found["reached"]
        return
    assert found["goal"] == share * max(known)
    assert found["reached"]
    first = next(k for k, v in enumerate(values, 1) if v is not None and v >= found["goal"])
    for name in targets.COSTS:
        assert found[name] == lines[first - 1].get(name)


def test_a_share_is_one_of_the_best_value_of_all_runs():
    slow = [line(5, 4.0), line(10, 8.0)]
    good = [line(5, 9.0), line(10, 10.0)]
    found = targets.parsed(f"{METRIC}:0.9max").costs_of({"slow": slow, "good": good})
    assert found["good"]["goal"] == found["slow"]["goal"] == 9.0
    assert found["good"]["round"] == 5
    # It is only known that it takes more than it has had.
    assert not found["slow"]["reached"]
    assert found["slow"]["round"] is None
    assert found["slow"]["spent/upload_bytes"] == 1000.0


def test_a_run_stops_at_its_target_and_says_what_it_took(tmp_path):
    settings = {"rounds": 8, "eval_every": 1, "cohort": 7, "dropout": 0.2, "seed": 3}
    whole = fedvlr_jax.train(
        worlds.config(**settings), tmp_path / "whole", dataset=worlds.dataset()
    )
    lines = record.evaluations(whole.out)
    goal = sorted(one[METRIC] for one in lines)[4]
    there = next(one for one in lines if one[METRIC] >= goal)
    config = worlds.config(**settings, target=f"{METRIC}:{goal}")
    found = fedvlr_jax.train(config, tmp_path / "short", dataset=worlds.dataset())
    assert [one["round"] for one in record.evaluations(found.out)] == list(
        range(1, there["round"] + 1)
    )
    summary = found.summary
    assert summary["stopped_early"]
    assert not summary["best_is_last"]
    assert summary["to_target"]["reached"]
    for name in ("round", "client_updates", "download_bytes", "upload_bytes"):
        assert summary["to_target"][name] == there[name]
    # Lines add up to what the summary has counted.
    assert there["client_updates"] == summary["participation"]["trained"]
    for name in ("download_bytes", "upload_bytes"):
        assert there[name] == pytest.approx(summary["communication"][name])
    assert whole.summary["to_target"] is None


def test_a_target_is_at_one_of_the_cutoffs():
    config = Config.of(cutoffs="5,30", target="valid/cold/mrr@30:3")
    assert targets.parsed(config.schedule.target).cutoff == 30
