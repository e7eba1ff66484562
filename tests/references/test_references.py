"""Centralized references against slow, obvious ones."""

import itertools

import jax
import numpy as np
import pytest

from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.data.types import Catalogue, from_pairs
from fedvlr_jax.references import choose, ease, ials, neighbours, vbpr
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

    table = [[cosine(i, j) for j in range(data.n_items)] for i in range(data.n_items)]
    check_added(neighbours.scores(data, k), table, k)


def check_added(found, table, k):
    """Scores are sums of a table's similarities over the client's items, of the k nearest only."""
    for user, history in enumerate(worlds.histories(DATA)):
        for j in range(len(table)):
            kept = []
            for i in history:
                others = sorted((table[i][x] for x in range(len(table)) if x != i), reverse=True)
                if j != i and (not k or table[i][j] >= others[k - 1]):
                    kept.append(table[i][j])
            assert found[user, j] == pytest.approx(sum(kept), abs=1e-5)


@pytest.mark.parametrize("at_once", [7, 1024])
@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("kinds", [("image", "text"), ("image",), ("text",)])
def test_content_knn_adds_up_cosines_of_features(monkeypatch, kinds, k, at_once):
    monkeypatch.setattr(neighbours, "_ROWS_AT_ONCE", at_once)
    lengths = np.random.default_rng(1).uniform(0.5, 2, (DATA.interactions.n_items, 1))
    rows = {kind: lengths * getattr(DATA.catalogue, kind) for kind in kinds}

    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    items = range(DATA.interactions.n_items)
    table = [[sum(cosine(x[i], x[j]) for x in rows.values()) for j in items] for i in items]
    catalogue = Catalogue(rows.get("image"), rows.get("text"))
    check_added(neighbours.content_scores(DATA.interactions, catalogue, k), table, k)


def test_content_knn_ranks_items_that_nobody_has():
    data = DATA.interactions
    cold = data.popularity == 0
    assert cold.any()
    found = neighbours.content_scores(data, DATA.catalogue, 0)
    assert np.isfinite(found).all()
    assert np.ptp(found[:, cold], axis=1).min() > 0
    assert (neighbours.scores(data, 0)[:, cold] == 0).all()


def test_itemknn_is_the_same_in_parts(monkeypatch):
    whole = neighbours.scores(DATA.interactions, 5)
    monkeypatch.setattr(neighbours, "_ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(neighbours.scores(DATA.interactions, 5), whole, atol=1e-6)


def alternating(data, start, unobserved, penalty, iterations):
    """iALS, one client and one item at a time."""
    seen = train_matrix(data) > 0
    clients, items = np.zeros((data.n_clients, start.shape[1])), start.astype(float)

    def solve(target, others):
        """The least squares over all pairs of one row, written out."""
        weights = np.where(target, 1.0, 0.0)
        system = np.zeros((others.shape[1],) * 2)
        for weight, row in zip(weights, others, strict=True):
            system += (weight + unobserved) * np.outer(row, row)
        system += penalty * (weights.sum() + unobserved * len(others)) * np.eye(others.shape[1])
        return np.linalg.solve(system, weights @ others)

    for _ in range(iterations):
        clients = np.array([solve(seen[u], items) for u in range(data.n_clients)])
        items = np.array([solve(seen[:, i], clients) for i in range(data.n_items)])
    return clients @ items.T


@pytest.mark.parametrize("at_once", [(512, 1 << 14), (2, 16)])
def test_ials_solves_for_every_client_and_item_in_turn(monkeypatch, at_once):
    rows, pairs = at_once
    monkeypatch.setattr(ials, "_ROWS_AT_ONCE", rows)
    monkeypatch.setattr(ials, "_PAIRS_AT_ONCE", pairs)
    data = worlds.dataset((3, 7, 1, 9, 20, 33, 8), 50).interactions
    settings = {"unobserved": 0.1, "penalty": 0.01}
    found = ials.iterations(data, dim=6, seed=3, **settings)
    start = 0.1 / np.sqrt(6) * jax.random.normal(jax.random.key(3), (data.n_items, 6))
    for number, scores in enumerate(itertools.islice(found, 2), 1):
        expected = alternating(data, np.asarray(start), iterations=number, **settings)
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("unobserved", [1e-6, 1e6])
@pytest.mark.parametrize("penalty", [1e-4, 1e6])
def test_ials_is_finite_at_extremes(unobserved, penalty):
    data = DATA.interactions
    found = ials.iterations(data, dim=64, unobserved=unobserved, penalty=penalty, seed=0)
    assert np.isfinite(next(itertools.islice(found, 20, None))).all()


def test_ials_gives_0_where_nobody_has_anything():
    nothing = np.full(4, -1, np.int32)
    none = np.zeros(0, np.int64)
    data = from_pairs(none, none, nothing, nothing, 30)
    found = ials.iterations(data, dim=4, unobserved=0.1, penalty=0.1, seed=0)
    np.testing.assert_array_equal(next(found), np.zeros((4, 30)))


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
    found = {r.name: r for r in references(data, seed=0, dim=8, epochs=8)}
    assert list(found) == ["popularity", "ItemKNN", "content-kNN", "EASE", "iALS", "VBPR"]
    for reference in found.values():
        assert reference.test["ndcg@10"] > 1.3 * 100 * 10 / 80 * 0.46
        assert (reference.test_ranks >= 0).all()
    assert found["iALS"].test["ndcg@10"] > found["popularity"].test["ndcg@10"]


def test_content_is_no_reference_where_there_are_no_features():
    found = references(worlds.dataset(modalities=0), seed=0, dim=4, epochs=1)
    assert [r.name for r in found] == ["popularity", "ItemKNN", "EASE", "iALS", "VBPR"]


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
