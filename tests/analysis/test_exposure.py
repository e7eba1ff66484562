"""Coverage, Gini coefficient and novelty against their plain definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis import exposure


@given(
    users=st.integers(1, 6),
    n_items=st.integers(1, 40),
    missing=st.integers(0, 25),
    seed=st.integers(0, 99),
)
def test_equal_to_counting_pair_by_pair(users, n_items, missing, seed):
    rng = np.random.default_rng(seed)
    top = np.full((users, 50), -1)
    for row in top:
        length = max(min(n_items, 50) - rng.integers(missing + 1), 0)
        row[:length] = rng.permutation(n_items)[:length]
    popularity = rng.integers(0, 9, n_items)
    found = exposure.of_rankings(top, popularity, n_clients=9)
    for k in (10, 20, 50):
        shown = [int(item) for row in top for item in row[:k] if item >= 0]
        if not shown:
            assert found[f"gini@{k}"] is found[f"coverage@{k}"] is found[f"novelty@{k}"] is None
            continue
        counts = [shown.count(item) for item in range(n_items)]
        assert found[f"coverage@{k}"] == pytest.approx(100 * len(set(shown)) / n_items)
        differences = [abs(a - b) for a, b in itertools.product(counts, counts)]
        gini = np.mean(differences) / 2 / np.mean(counts)
        assert found[f"gini@{k}"] == pytest.approx(gini, abs=1e-12)
        bits = [-math.log2((popularity[item] + 1) / 10) for item in shown]
        assert found[f"novelty@{k}"] == pytest.approx(np.mean(bits))


def test_all_alike_and_all_one():
    even = np.tile(np.arange(10), (4, 1))
    assert exposure.of_rankings(even, np.ones(10, int), 4)["gini@10"] == 0
    one = np.concatenate([np.zeros((4, 1), int), np.full((4, 9), -1)], axis=1)
    found = exposure.of_rankings(one, np.full(10, 4), 4)
    assert found["gini@10"] == pytest.approx(0.9)
    assert found["coverage@10"] == 10
    assert found["novelty@10"] == 0
