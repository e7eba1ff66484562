"""Scores by neighbours beside those by views and head, against plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.client.experts import with_neighbours
from fedvlr_jax.protocol import Neighbours

N_ITEMS, WIDTH, SHARE = 12, 6, 0.7
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((N_ITEMS, N_ITEMS)).astype("f4")
SCORES = (5 + 3 * RNG.standard_normal(N_ITEMS)).astype("f4")

mixed = jax.jit(with_neighbours)


def standardized(scores):
    scores = np.asarray(scores, "f8")
    return (scores - scores.mean()) / (scores.std() or 1)


def found(scores, history):
    places = jnp.asarray(history + [N_ITEMS] * (WIDTH - len(history)), jnp.int32)
    known = Neighbours(jnp.asarray(WEIGHTS), jnp.float32(SHARE))
    return np.asarray(mixed(known, jnp.asarray(scores), places, places < N_ITEMS))


@pytest.mark.parametrize("history", [[3], [0, 4, 7], [1, 2, 5, 8, 9, 11]], ids=len)
def test_they_are_added_up_over_the_history_and_standardized(history):
    expected = standardized(SCORES) + SHARE * standardized(WEIGHTS[history].sum(axis=0))
    np.testing.assert_allclose(found(SCORES, history), expected, atol=1e-5)


def test_a_client_without_history_ranks_by_its_head():
    np.testing.assert_allclose(found(SCORES, []), standardized(SCORES), atol=1e-5)


@pytest.mark.parametrize("same", [0.0, 0.1, -1e6])
def test_a_head_that_says_the_same_of_all_items_says_nothing(same):
    expected = SHARE * standardized(WEIGHTS[[1, 4]].sum(axis=0))
    np.testing.assert_allclose(found(np.full(N_ITEMS, same, "f4"), [1, 4]), expected, atol=1e-5)


def test_what_is_not_finite_stays_so():
    scores = SCORES.copy()
    scores[2] = np.nan
    assert not np.isfinite(found(scores, [1, 4])).any()


def test_where_there_are_no_neighbours_scores_stay_as_they_are():
    places = jnp.arange(WIDTH)
    scores = jnp.asarray(SCORES)
    assert with_neighbours(None, scores, places, places < N_ITEMS) is scores
