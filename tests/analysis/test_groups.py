import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis import metrics
from fedvlr_jax.analysis.groups import by_value


def test_groups_are_cut_at_the_edges():
    ranks, values = np.array([0, 3, 60, -1, 9]), np.array([0, 1, 4, 5, 9])
    found = by_value(ranks, np.ones(5, bool), values, (1, 5))
    assert [(g.name, g.users) for g in found] == [("0", 1), ("1 to 4", 2), ("5 and more", 1)]
    assert [g.metrics["hr@50"] for g in found] == [100, 50, 100]
    empty = by_value(ranks, np.ones(5, bool), values, (1, 5, 20))[-1]
    assert (empty.users, empty.metrics["ndcg@10"]) == (0, None)


@given(
    users=st.lists(st.tuples(st.integers(-1, 80), st.integers(0, 30), st.booleans()), min_size=1)
)
def test_groups_add_up_to_everybody(users):
    ranks, values, warm = (np.array(x) for x in zip(*users, strict=True))
    found = by_value(ranks, warm, values, (5, 10, 20))
    assert sum(g.users for g in found) == (ranks >= 0).sum()
    whole = metrics.from_ranks(ranks, warm)["hr@20"]
    parts = [g.users * g.metrics["hr@20"] for g in found if g.users]
    if whole is not None:
        np.testing.assert_allclose(sum(parts) / (ranks >= 0).sum(), whole)
