"""Centralized references against slow, obvious ones."""

import itertools

import numpy as np
import pytest

from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.references import choose, ease, neighbours, vbpr
from fedvlr_jax.references.choose import references
from fedvlr_jax.references.ranking import held_out_ranks, train_matrix
from tests import worlds

DATA = worlds.dataset()


def test_ranks_equal_sorting_candidates():
    data = DATA.interactions
    scores = np.random.default_rng(0).standard_normal((data.n_clients, data.n_items))
    ranks = held_out_ranks(scores, data, data.test, seed=0)
    for user, history in enumerate(worlds.histories(DATA)):
        order = [i for i in np.argsort(-scores[user]) if i not in set(history.tolist())]
        target = data.test[user]
        assert ranks[user] == (order.index(target) if target >= 0 else -1)


def test_ties_are_random():
    data = DATA.interactions
    constant = np.zeros((data.n_clients, data.n_items))
    ranks = np.array([held_out_ranks(constant, data, data.valid, seed) for seed in range(400)])
    expected = (data.n_items - data.lengths - 1) / 2
    spread = data.n_items / np.sqrt(12 * 400)
    assert np.abs(ranks.mean(axis=0) - expected).max() < 5 * spread


@pytest.mark.parametrize("k", [0, 3])
def test_itemknn_adds_up_cosines(k):
    data, histories = DATA.interactions, worlds.histories(DATA)
    owners = [{u for u, h in enumerate(histories) if i in h} for i in range(data.n_items)]

    def cosine(i, j):
        both = len(owners[i] & owners[j])
        return both / np.sqrt(len(owners[i]) * len(owners[j])) if both and i != j else 0.0

    found = neighbours.scores(data, k)
    table = [[cosine(i, j) for j in range(data.n_items)] for i in range(data.n_items)]
    for user, history in enumerate(histories):
        for j in range(data.n_items):
            kept = [
                table[i][j]
                for i in history
                if not k or table[i][j] >= sorted(table[i], reverse=True)[k - 1]
            ]
            assert found[user, j] == pytest.approx(sum(kept), abs=1e-5)


def test_ease_is_the_ridge_regression_that_may_not_use_the_item_itself():
    data = DATA.interactions
    x = train_matrix(data).astype(float)
    found = ease.scores(data, 2.0)
    for item in range(0, data.n_items, 7):
        others = np.delete(np.arange(data.n_items), item)
        a = x[:, others]
        weights = np.linalg.solve(a.T @ a + 2.0 * np.eye(len(others)), a.T @ x[:, item])
        np.testing.assert_allclose(found[:, item], a @ weights, atol=1e-5)


def test_vbpr_learns_to_rank_train_items_first_and_reads_features():
    data = generate(120, 60, 0, 0.3, 0)
    settings = {"dim": 8, "learning_rate": 0.02, "penalty": 1e-3, "seed": 0}
    runs = [vbpr.epochs(data.interactions, c, **settings) for c in (data.catalogue,) * 2]
    first, again = (next(run) for run in runs)
    np.testing.assert_array_equal(first, again)
    later = next(itertools.islice(runs[0], 60, None))
    owned = train_matrix(data.interactions) > 0

    def share_in_order(scores):
        return np.mean(
            [(scores[u][o][:, None] > scores[u][~o]).mean() for u, o in enumerate(owned)]
        )

    assert share_in_order(later) > 0.9 > share_in_order(first)
    blank = data.catalogue.__class__(None, None)
    assert np.abs(next(vbpr.epochs(data.interactions, blank, **settings)) - first).max() > 1e-3


def test_every_reference_beats_chance_on_a_population_with_structure():
    data = generate(400, 100, 20, 100.0, 0)
    found = {r.name: r for r in references(data, seed=0, dim=8, epochs=20)}
    assert list(found) == ["popularity", "ItemKNN", "EASE", "VBPR"]
    for reference in found.values():
        assert reference.test["ndcg@10"] > 1.3 * 100 * 10 / 80 * 0.46
        assert (reference.test_ranks >= 0).all()


def test_what_is_not_finite_at_some_settings_is_left_out_and_at_all_has_no_rank():
    size = (DATA.interactions.n_clients, DATA.interactions.n_items)
    good, bad = np.random.default_rng(0).random(size), np.full(size, np.nan)
    found = choose._best("X", iter([("bad", bad), ("good", good)]), DATA, 0)
    assert found.setting == "good"
    assert found.test["ndcg@50"] > 0
    worse = np.where(np.arange(size[1]) == 3, np.inf, good)
    found = choose._best("X", iter([("bad", bad), ("worse", worse)]), DATA, 0)
    assert found.setting == "not finite at any setting"
    assert (found.test_ranks == -1).all()
    assert set(found.test.values()) == set(found.valid.values()) == {None}
