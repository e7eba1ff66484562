import json

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.study.search import Combination, Grid, Study
from tests import worlds

SETTINGS = {
    "dim": 8,
    "local_epochs": 1,
    "negatives": 1,
    "devices": 1,
    "rounds": 2,
    "eval_every": 1,
    "buckets": 1,
}
ID = Combination("fcf", "id")


def test_rates_are_chosen_on_validation_and_seeds_run_at_them(tmp_path):
    lines = []
    grid = Grid(server=(1e-4, 0.3), client=(0.5, 3e38))
    study = Study(SETTINGS, worlds.dataset(), grid, range(2), tmp_path, lines.append)
    found = study.search(ID)
    scores = {}
    for summary in (tmp_path / "runs" / "fcf-id").glob("*seed0/summary.json"):
        config = json.loads((summary.parent / "config.json").read_text())
        rates = config["server_lr"], config["client_lr"]
        scores[rates] = json.loads(summary.read_text())["valid"]["warm/ndcg@50"]
    assert set(scores) == {(1e-4, 0.5), (0.3, 0.5)}, "rates of 3e38 diverge"
    assert sum("not finite" in line for line in lines) == 2
    assert scores[found.rates] == max(scores.values())
    assert [r.out.name.split("-")[-1] for r in found.runs] == ["seed0", "seed1"]
    assert len(lines) == 2 + 2 + 1
    # Again: nothing is trained, and the result is the same.
    again = study.search(ID)
    assert [r.summary for r in again.runs] == [r.summary for r in found.runs]


def test_a_combination_that_always_diverges_is_a_sentence(tmp_path):
    grid = Grid(server=(1e-3,), client=(3e38,))
    with pytest.raises(UserError, match="fcf-id: diverges at all learning rates"):
        Study(SETTINGS, worlds.dataset(), grid, range(1), tmp_path, lambda _: None).search(ID)


def test_what_was_found_is_trained_again_with_something_changed(tmp_path):
    grid = Grid(server=(0.1,), client=(0.1,))
    study = Study(SETTINGS, worlds.dataset(), grid, range(2), tmp_path, lambda _: None)
    found = study.search(ID)
    noisy = study.vary(found, "noisy", gradient_noise=0.5)
    assert (noisy.combination, noisy.rates) == (ID, found.rates)
    for run, other in zip(found.runs, noisy.runs, strict=True):
        assert other.out == tmp_path / "runs" / "fcf-id-noisy" / run.out.name
        config = json.loads((other.out / "config.json").read_text())
        assert config["gradient_noise"] == 0.5
        assert other.summary["test"] != run.summary["test"]
    assert study.vary(found, "wild", client_lr=3e38) is None
