import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis import metrics


def test_hand_worked_case():
    ranks = np.array([0, 9, 10, 60, -1])
    warm = np.array([True, True, False, False, True])
    found = metrics.from_ranks(ranks, warm)
    assert found["hr@10"] == pytest.approx(100 * 2 / 4)
    assert found["hr@20"] == pytest.approx(100 * 3 / 4)
    assert found["ndcg@10"] == pytest.approx(100 * (1 + 1 / np.log2(11)) / 4)
    assert found["warm/hr@10"] == 100
    assert found["cold/hr@10"] == 0
    assert found["cold/ndcg@50"] == pytest.approx(100 / np.log2(12) / 2)


def test_an_empty_group_is_none():
    found = metrics.from_ranks(np.array([3, 4]), np.array([False, False]))
    assert found["warm/ndcg@50"] is None
    assert metrics.selection_score(found) == found["ndcg@50"]
    assert metrics.selection_score(found | {"warm/ndcg@50": 7.0}) == 7.0


@given(ranks=st.lists(st.integers(0, 70), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_equal_to_judging_the_ranked_lists(ranks, seed):
    # The plain definition, on whole rankings of 71 items with one relevant item each.
    rng = np.random.default_rng(seed)
    gains = {f"{name}@{k}": [] for k in metrics.CUTOFFS for name in ("hr", "ndcg", "mrr")}
    for rank in ranks:
        ranking = rng.permutation(71)
        relevant = ranking[rank]
        for k in metrics.CUTOFFS:
            hits = [float(item == relevant) for item in ranking[:k]]
            gains[f"hr@{k}"].append(sum(hits))
            gains[f"mrr@{k}"].append(sum(h / (i + 1) for i, h in enumerate(hits)))
            gains[f"ndcg@{k}"].append(sum(h / np.log2(i + 2) for i, h in enumerate(hits)))
    found = metrics.from_ranks(np.array(ranks), np.ones(len(ranks), bool))
    for name, values in gains.items():
        assert found[name] == pytest.approx(100 * np.mean(values))


@given(ranks=st.lists(st.integers(-1, 70), min_size=1, max_size=40))
def test_the_worst_tenth_are_those_whose_item_comes_last(ranks):
    known = sorted(1 / np.log2(rank + 2) for rank in ranks if rank >= 0)
    found = metrics.worst_tenth(np.array(ranks))
    if not known:
        assert found is None
        return
    count = next(n for n in range(1, 5) if 10 * n >= len(known))
    assert found == pytest.approx(100 * sum(known[:count]) / count)


@given(
    ranks=st.lists(st.integers(-1, 70), min_size=1, max_size=30),
    cutoffs=st.sets(st.integers(1, 70), min_size=1, max_size=5),
)
def test_other_cutoffs_choose_by_50_or_the_largest(ranks, cutoffs):
    cutoffs, ranks = sorted(cutoffs), np.array(ranks)
    found = metrics.from_ranks(ranks, np.ones(len(ranks), bool), cutoffs)
    assert metrics.cutoffs_of(found) == set(cutoffs)
    assert len(found) == 3 * 3 * len(cutoffs)
    k = 50 if 50 in cutoffs else cutoffs[-1]
    assert metrics.selection(found) == f"warm/ndcg@{k}"
    assert metrics.selection_cutoff(cutoffs) == k
    has = ranks[ranks >= 0]
    expected = None
    if len(has):
        expected = pytest.approx(100 * np.mean([1 / np.log2(r + 2) if r < k else 0 for r in has]))
    assert metrics.selection_score(found) == expected
