import dataclasses
import json

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.runs import scheduler
from fedvlr_jax.runs.ledger import FAILED
from fedvlr_jax.runs.study import Change, Combination, Studies, Study, points
from tests import worlds

SETTINGS = {
    "client_solver": "sgd",
    "dim": 8,
    "local_epochs": 1,
    "negatives": 1,
    "devices": 1,
    "rounds": 2,
    "eval_every": 1,
    "buckets": 1,
}
ID = Combination("fcf", "id")


class Listener:
    def __init__(self):
        self.ends, self.notes = [], []

    def note(self, sentence):
        self.notes.append(sentence)

    def reporter(self, *_):
        return Silent()

    def ended(self, run, row):
        self.ends.append((run, row))

    def known(self, rows): ...


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes a study of the tiny data set."""
    loaded = [worlds.dataset()]
    monkeypatch.setattr(scheduler.DatasetCache, "load_all", lambda _, cs: loaded * len(cs))

    def make(server=(0.1,), client=(0.1,), seeds=2, **others):
        grid = points({"server_lr": server, "client_lr": client})
        return Study(SETTINGS, {ID: grid}, range(seeds), tmp_path, **others)

    return make


def test_rates_are_chosen_on_validation_and_seeds_run_at_them(tmp_path, study):
    told, mine = Listener(), study(server=(1e-4, 0.3), client=(0.5, 3e38))
    rows = scheduler.execute(mine, tmp_path, told)
    found = mine.result(ID, rows)
    scores = {}
    for summary in (tmp_path / "runs" / "fcf-id").glob("*seed=0/summary.json"):
        config = json.loads((summary.parent / "config.json").read_text())
        point = tuple((name, config[name]) for name in ("server_lr", "client_lr"))
        scores[point] = json.loads(summary.read_text())["valid"]["warm/ndcg@50"]
    assert {tuple(dict(point).values()) for point in scores} == {(1e-4, 0.5), (0.3, 0.5)}, (
        "rates of 3e38 diverge"
    )
    failed = [row for _, row in told.ends if row.status == FAILED]
    assert ["not finite" in row.content["reason"] for row in failed] == [True, True]
    assert scores[found.point] == max(scores.values())
    assert [r.out.name.split(",")[-1] for r in found.runs] == ["seed=0", "seed=1"]
    assert len(told.ends) == 4 + 1
    # Again: nothing is trained, and the result is the same.
    again = Listener()
    rows = scheduler.execute(mine, tmp_path, again)
    assert again.ends == []
    assert [r.summary for r in mine.result(ID, rows).runs] == [r.summary for r in found.runs]
    for result in found.runs:
        assert json.loads((result.out / "summary.json").read_text()) == result.summary


def test_a_combination_that_always_diverges_comes_to_nothing(tmp_path, study):
    mine = study(server=(1e-3,), client=(3e38,), changes={ID: [Change("more")]})
    rows = scheduler.execute(mine, tmp_path, Listener())
    assert mine.result(ID, rows) is None
    assert list(rows) == mine.searched(ID)


def test_what_was_found_is_trained_again_with_something_changed(tmp_path, study):
    noisy, wild = Change("noisy", {"gradient_noise": 0.5}), Change("wild", {"client_lr": 3e38})
    mine = study(changes={ID: [noisy, wild]})
    rows = scheduler.execute(mine, tmp_path, Listener())
    found = mine.result(ID, rows)
    changed = mine.changed(found, noisy, rows)
    assert (changed.combination, changed.point) == (ID, found.point)
    for run, other in zip(found.runs, changed.runs, strict=True):
        assert other.out == tmp_path / "runs" / "fcf-id-noisy" / run.out.name
        config = json.loads((other.out / "config.json").read_text())
        assert config["gradient_noise"] == 0.5
        assert other.summary["test"] != run.summary["test"]
    assert mine.changed(found, wild, rows) is None


def test_members_train_on_their_own_data_in_a_folder_of_their_own(tmp_path, study):
    members = worlds.dataset()
    change = Change("members", {"keep_checkpoints": "best"}, members)
    mine = study(changes={ID: [change]})
    names = {name: plan for name, plan in mine.wanted({}).items() if plan.dataset is members}
    assert not names, "rates are not known yet"
    rows = scheduler.execute(mine, tmp_path, Listener())
    changed = mine.changed(mine.result(ID, rows), change, rows)
    assert [run.out.parent for run in changed.runs] == [
        tmp_path / "members" / "runs" / "fcf-id-members"
    ] * 2


def test_studies_share_a_folder_each_in_its_place(tmp_path, study):
    parts = [study(folder=f"part{k}", seeds=1) for k in range(2)]
    rows = scheduler.execute(Studies(parts), tmp_path, Listener())
    assert list(rows) == [f"part{k}/fcf-id/server_lr=0.1,client_lr=0.1,seed=0" for k in range(2)]
    for part in parts:
        (run,) = part.result(ID, rows).runs
        assert run.out.parts[-4:] == (
            part.folder,
            "runs",
            "fcf-id",
            "server_lr=0.1,client_lr=0.1,seed=0",
        )
        assert (run.out / "summary.json").exists()


def test_other_data_are_another_study(tmp_path, study):
    scheduler.execute(study(fingerprint="a", seeds=1), tmp_path, Listener())
    with pytest.raises(UserError, match=r"study of other data .*was a, now b"):
        scheduler.execute(study(fingerprint="b", seeds=1), tmp_path, Listener())


def test_more_rounds_go_on_and_rates_are_chosen_anew(tmp_path, study):
    mine = study(server=(0.1, 0.3), seeds=1)
    scheduler.execute(mine, tmp_path, Listener())
    mine, told = dataclasses.replace(mine, settings=SETTINGS | {"rounds": 3}), Listener()
    rows = scheduler.execute(mine, tmp_path, told)
    assert {row.content["rounds_done"] for row in rows.values()} == {3}
    assert len(told.ends) == 2
