import numpy as np
import pytest

from fedvlr_jax.runs import scheduler
from fedvlr_jax.runs.study import Combination, Found, Study, points
from fedvlr_jax.simulation.run import Result
from fedvlr_jax.study import cold_start
from tests import worlds
from tests.runs.test_study import SETTINGS, Listener


@pytest.fixture
def found(tmp_path):
    """Two seeds of one combination on the tiny data set, ranks made up."""
    data, runs = worlds.dataset().interactions, []
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        ranks = np.where(data.test >= 0, np.arange(data.n_clients) * 10 * seed, -1)
        np.savez(
            folder / "per_user.npz",
            user=np.arange(data.n_clients),
            rank=ranks,
            warm=data.warm("test"),
            history_length=data.lengths,
        )
        runs.append(Result({}, folder))
    return [Found(Combination("fcf", "id"), (("server_lr", 0.1),), tuple(runs))]


def test_warm_users_by_history_length(found):
    data = worlds.dataset().interactions
    table = cold_start.by_history_length(found)
    warm = data.warm("test") & (data.test >= 0)
    assert table["users"].sum() == warm.sum()
    for row in table.to_dict("records"):
        low, *high = row["group"].replace(" and more", " to 9999").split(" to ")
        here = warm & (data.lengths >= int(low)) & (data.lengths <= int((high or [low])[0]))
        hits = [100.0, 100 * (np.flatnonzero(here) * 10 < 50).mean()]
        assert row["users"] == here.sum()
        assert row["hr@50"] == pytest.approx(np.mean(hits))
        assert row["hr@50 sd"] == pytest.approx(np.std(hits, ddof=1))


def test_all_users_by_popularity_of_their_item(found):
    data = worlds.dataset().interactions
    table = cold_start.by_item_popularity(found, data).set_index("group")
    has = data.test >= 0
    assert table["users"].sum() == has.sum()
    cold = has & ~data.warm("test")
    assert table["users"].get("0", 0) == cold.sum()


@pytest.mark.slow
def test_newcomers_are_told_by_epochs_of_fitting(tmp_path, monkeypatch):
    dataset = worlds.dataset()
    monkeypatch.setattr(scheduler.DatasetCache, "load_all", lambda _, cs: [dataset] * len(cs))
    change, newcomers = cold_start.members_of(dataset, 0.5)
    mine, grid = Combination("fcf", "id"), points({"server_lr": (0.1,), "client_lr": (0.1,)})
    study = Study(SETTINGS, {mine: grid}, range(2), tmp_path, {mine: [change]})
    rows = scheduler.execute(study, tmp_path, Listener())
    found = [study.result(mine, rows)]
    args = (study, found, newcomers, rows, print, (0, 2))
    table = cold_start.newcomers_table(*args)
    assert table["epochs"].tolist() == [0, 2]
    assert table["hr@50"].between(0, 100).all()
    before = [p.stat().st_mtime_ns for p in (tmp_path / "members").rglob("summary.json")]
    assert len(before) == 2
    assert table.equals(cold_start.newcomers_table(*args))
    after = [p.stat().st_mtime_ns for p in (tmp_path / "members").rglob("summary.json")]
    assert after == before
