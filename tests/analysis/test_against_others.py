"""Metrics of random rankings against other packages', and where their definitions differ.

ranx is among what the tests need. RecTools takes NumPy 2 from Python 3.13 on only, and LensKit
brings PyTorch, so they are an extra: pip install -e '.[peers]'.
"""

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.analysis import exposure, metrics

USERS, ITEMS = 60, 90
CUTOFFS = (1, 5, 10, 50, 90)


@pytest.fixture(scope="module")
def ranked():
    """Every user's ranking of all items, and the place of its held-out item in it."""
    rng = np.random.default_rng(0)
    top = np.stack([rng.permutation(ITEMS) for _ in range(USERS)])
    # Half of the items are held out far more often than they are ranked first, as for real users.
    ranks = np.minimum(rng.integers(0, ITEMS, USERS), rng.integers(0, ITEMS, USERS))
    return top, ranks


@pytest.fixture(scope="module")
def popularity():
    """Users with each item in the train split; some items are cold."""
    return np.random.default_rng(1).integers(0, USERS, ITEMS) * (np.arange(ITEMS) % 5 > 0)


def measured(ranks):
    return metrics.from_ranks(ranks, np.ones(len(ranks), bool), CUTOFFS)


def as_table(top):
    """A ranking as RecTools has it: a row per user and place, the first one 1."""
    users, places = np.indices(top.shape)
    columns = {"user_id": users, "item_id": top, "rank": places + 1}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


# Numba compiles for most of a minute, and says what it had to guess.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
def test_accuracy_equals_that_of_ranx(ranked):
    import ranx

    top, ranks = ranked
    held_out = {str(u): {str(top[u, rank]): 1} for u, rank in enumerate(ranks)}
    scores = {str(u): {str(i): float(-k) for k, i in enumerate(row)} for u, row in enumerate(top)}
    # With one relevant item a user, recall is the hit rate, and MAP is MRR.
    names = {"hit_rate": "hr", "recall": "hr", "ndcg": "ndcg", "mrr": "mrr", "map": "mrr"}
    asked = [f"{name}@{k}" for name in names for k in CUTOFFS]
    expected = ranx.evaluate(ranx.Qrels(held_out), ranx.Run(scores), asked)
    found = measured(ranks)
    for name in asked:
        kind, _, k = name.partition("@")
        assert found[f"{names[kind]}@{k}"] == pytest.approx(100 * expected[name]), name


@pytest.fixture(scope="module")
def rectools():
    return pytest.importorskip(
        "rectools.metrics", reason="RecTools is an extra, of Python 3.13: pip install -e '.[peers]'"
    )


@pytest.mark.parametrize("k", CUTOFFS)
def test_accuracy_equals_that_of_rectools(ranked, rectools, k):
    top, ranks = ranked
    table, found = as_table(top), measured(ranks)
    held_out = pd.DataFrame({"user_id": range(USERS), "item_id": top[range(USERS), ranks]})
    expected = {
        "hr": rectools.HitRate(k),
        "mrr": rectools.MRR(k),
        # By default it is divided by the DCG of K relevant items, of which a user here has one.
        "ndcg": rectools.NDCG(k, divide_by_achievable=True),
    }
    for name, metric in expected.items():
        assert found[f"{name}@{k}"] == pytest.approx(100 * metric.calc(table, held_out)), name
    assert found[f"hr@{k}"] == pytest.approx(100 * rectools.Recall(k).calc(table, held_out))
    assert found[f"mrr@{k}"] == pytest.approx(100 * rectools.MAP(k).calc(table, held_out))
    ideal = sum(1 / np.log2(place + 2) for place in range(k))
    usual = rectools.NDCG(k).calc(table, held_out)
    assert found[f"ndcg@{k}"] == pytest.approx(100 * usual * ideal)


@pytest.mark.parametrize("k", CUTOFFS)
def test_coverage_and_novelty_equal_those_of_rectools(ranked, popularity, rectools, k):
    top, _ = ranked
    table = as_table(top)
    covered = rectools.CatalogCoverage(k, normalize=True).calc(table, list(range(ITEMS)))
    # Its -log2 P/U has no value for an item that nobody has, for which it takes P = 1. Here it is
    # -log2 (P + 1)/(U + 1), as if there was one more user, who has all items. Its mean is one over
    # users of means over their lists, which is the same where all lists are as long.
    one_more = [(user, item) for item in range(ITEMS) for user in range(popularity[item])]
    one_more += [(USERS, item) for item in range(ITEMS)]
    # Of users it counts those who have anything.
    found = exposure.of_rankings(top, popularity, int(popularity.max()), CUTOFFS)
    before = pd.DataFrame(one_more, columns=["user_id", "item_id"])
    assert found[f"coverage@{k}"] == pytest.approx(100 * covered)
    novelty = rectools.MeanInvUserFreq(k).calc(table, before)
    assert found[f"novelty@{k}"] == pytest.approx(novelty)


@pytest.mark.parametrize("k", CUTOFFS)
def test_gini_equals_that_of_lenskit(ranked, k):
    lenskit = pytest.importorskip(
        "lenskit.metrics", reason="LensKit is an extra: pip install -e '.[peers]'"
    )
    from lenskit.data import ItemList

    top, _ = ranked
    rankings = [ItemList(row, ordered=True) for row in top]
    # Of the number of lists that an item is in; its ExposureGini weighs places, which is another.
    metric = lenskit.ListGini(k, items=ITEMS)
    data = [metric.compute_list_data(ranking, None) for ranking in rankings]
    found = exposure.of_rankings(top, np.ones(ITEMS, int), USERS, CUTOFFS)
    assert found[f"gini@{k}"] == pytest.approx(metric.global_aggregate(data), abs=1e-6)
