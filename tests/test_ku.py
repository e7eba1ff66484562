"""The method on real data: accuracy floors, judged twice, and no leak from test items."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import fedvlr_jax
from fedvlr_jax import data as data_sets
from fedvlr_jax.data.layout import read_folder
from fedvlr_jax.prepare import PrepareConfig, prepare
from tests import worlds
from tests.experiments import programs


def judged(folder, rankings, k=50):
    """(HR@k, NDCG@k) in percent over warm users, from the exported lists and inter.csv alone."""
    table = pd.read_csv(folder / "inter.csv")
    train = table[table.split_label == 0]
    seen = train.groupby("userID").itemID.agg(set)
    with np.load(rankings, allow_pickle=False) as archive:
        top = dict(zip(archive["users"].tolist(), archive["topk"].tolist(), strict=True))
    gains = []
    for _, row in table[table.split_label == 2].iterrows():
        user, item = int(row.userID), int(row.itemID)
        assert not set(top[user]) & seen[user]
        assert len(set(top[user])) == k
        if item in set(train.itemID):
            place = top[user].index(item) if item in top[user] else None
            gains.append((0, 0) if place is None else (1, 1 / np.log2(place + 2)))
    return tuple(100 * np.mean(gains, axis=0))


@pytest.mark.slow
def test_defaults_reach_the_floors_on_warm_users(ku, tmp_path):
    # A process of its own is compiled as a user's is, which pays over three whole runs.
    flags = (f"--data={ku}", "--seeds=3", "--rounds=100", f"--out={tmp_path}")
    done = programs.run("experiments.sweep", *flags)
    assert done.returncode == 0, done.stderr
    found = []
    for seed in range(3):
        run = tmp_path / "runs" / f"seed={seed}"
        summary = json.loads((run / "summary.json").read_text())
        hr, ndcg = judged(ku, run / "rankings.npz")
        assert summary["test"]["warm/hr@50"] == pytest.approx(hr, abs=1e-3)
        assert summary["test"]["warm/ndcg@50"] == pytest.approx(ndcg, abs=1e-3)
        assert summary["timing"]["total_seconds"] < 180
        found.append((hr, ndcg))
    hr, ndcg = np.mean(found, axis=0)
    assert hr >= 68
    assert ndcg >= 30


def test_permuted_test_items_leave_the_rankings_bit_for_bit(ku, tmp_path):
    config = fedvlr_jax.Config.of(data=str(ku), rounds=4, eval_every=2, devices=1)
    dataset = data_sets.load(config)
    found = dataset.interactions
    taken = [
        {*found.items[a:b].tolist(), int(v)}
        for a, b, v in zip(found.offsets, found.offsets[1:], found.valid, strict=False)
    ]
    # Swap test items between users at random, wherever neither pair would be repeated.
    rng = np.random.default_rng(0)
    test = found.test.copy()
    for _ in range(5000):
        u, v = rng.integers(0, found.n_clients, 2)
        if test[u] not in taken[v] and test[v] not in taken[u]:
            test[[u, v]] = test[[v, u]]
    assert sorted(test) == sorted(found.test)
    assert (test != found.test).mean() > 0.8
    other = dataclasses.replace(
        dataset, interactions=dataclasses.replace(found, test=test.astype(np.int32))
    )
    a = fedvlr_jax.train(config, tmp_path / "a", dataset=dataset)
    b = fedvlr_jax.train(config, tmp_path / "b", dataset=other)
    assert a.summary["best_round"] == b.summary["best_round"]
    assert a.summary["valid"] == b.summary["valid"]
    assert a.summary["test"] != b.summary["test"]
    with np.load(a.out / "rankings.npz") as x, np.load(b.out / "rankings.npz") as y:
        np.testing.assert_array_equal(x["topk"], y["topk"])
        np.testing.assert_array_equal(x["users"], y["users"])


def test_preparing_it_anew_gives_the_published_split(ku, tmp_path):
    config = PrepareConfig.of(source="mmrec", raw=str(ku))
    ours = read_folder(prepare(config, tmp_path / "ku").out, needs_content=True)
    theirs = read_folder(ku, needs_content=True)
    users, items = (
        pd.read_csv(tmp_path / "ku" / f"{name}.csv")["original_id"].to_numpy()
        for name in ("users", "items")
    )
    np.testing.assert_array_equal(items[ours.interactions.test], theirs.interactions.test[users])
    np.testing.assert_array_equal(items[ours.interactions.valid], theirs.interactions.valid[users])
    for found, expected in zip(
        worlds.histories(ours), (worlds.histories(theirs)[user] for user in users), strict=True
    ):
        np.testing.assert_array_equal(np.sort(items[found]), expected)
    np.testing.assert_array_equal(ours.catalogue.image, theirs.catalogue.image[items])
