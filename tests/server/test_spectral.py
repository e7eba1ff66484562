"""Item weights from co-occurrence, against the reference. Warm rounds: tests/simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.references import ease
from fedvlr_jax.references.ranking import train_matrix
from fedvlr_jax.server.spectral import item_weights
from tests import worlds

DATA = worlds.dataset().interactions
MATRIX = np.asarray(train_matrix(DATA), "f8")
PENALTY = 2.0

weights_of = jax.jit(item_weights, static_argnums=2)


def found(pairs, kept):
    return np.asarray(weights_of(jnp.asarray(pairs, jnp.float32), jnp.float32(PENALTY), kept))


@pytest.mark.parametrize("kept", [39, 1000])
def test_all_weights_are_those_of_ease(kept):
    weights = found(MATRIX.T @ MATRIX, kept)
    np.testing.assert_allclose(MATRIX @ weights, ease.scores(DATA, PENALTY), atol=1e-5)


def test_noise_that_is_not_symmetric_is_averaged():
    noise = 0.1 * np.random.default_rng(0).standard_normal((40, 40))
    pairs = MATRIX.T @ MATRIX
    even = pairs + (noise + noise.T) / 2
    np.testing.assert_allclose(found(pairs + noise, 39), found(even, 39), atol=1e-5)


@pytest.mark.parametrize("kept", [1, 5, 38])
def test_the_largest_of_every_row_stay(kept):
    inverse = np.linalg.inv(MATRIX.T @ MATRIX + PENALTY * np.eye(40))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    expected = np.zeros_like(weights)
    for row, of_item in zip(expected, weights, strict=True):
        largest = np.argsort(-np.abs(of_item))[:kept]
        row[largest] = of_item[largest]
    # Of weights that are nearly equal another one may stay.
    sizes = [np.sort(np.abs(x), axis=1) for x in (found(MATRIX.T @ MATRIX, kept), expected)]
    np.testing.assert_allclose(*sizes, atol=1e-5)
    same = found(MATRIX.T @ MATRIX, kept)
    there = same != 0
    np.testing.assert_allclose(same[there], weights[there], atol=1e-5)


def test_of_equal_weights_no_more_stay_than_are_wanted():
    everybody = np.ones((5, 8))
    assert ((found(everybody.T @ everybody, 3) != 0).sum(axis=1) == 3).all()


def test_more_rows_than_are_sorted_at_a_time():
    taken = np.random.default_rng(0).random((400, 300)) < 0.05
    weights = found(taken.T @ taken.astype("f8"), 7)
    assert ((weights != 0).sum(axis=1) == 7).all()
