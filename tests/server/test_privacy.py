"""Noise on the cohort's sum, tested statistically."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.protocol import CohortSum
from fedvlr_jax.server.privacy import noised, with_noise


def test_noise_is_gaussian_of_the_wanted_size_and_independent():
    tree = {"a": jnp.zeros((200, 100)), "b": jnp.full(20_000, 3.0)}
    found = with_noise(tree, jax.random.key(0), jnp.float32(0.7))
    a, b = np.asarray(found["a"]).ravel(), np.asarray(found["b"]) - 3
    for values in (a, b):
        # Of 20,000 draws mean, spread and kurtosis lie within five standard errors.
        assert abs(values.mean()) < 5 * 0.7 / np.sqrt(20_000)
        assert values.std() == pytest.approx(0.7, rel=5 / np.sqrt(40_000))
        assert np.mean((values / 0.7) ** 4) == pytest.approx(3, abs=5 * np.sqrt(96 / 20_000))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(20_000)


def test_the_denominator_is_the_number_of_clients_that_were_asked():
    total = CohortSum(jnp.ones((3, 4)), None, jnp.float32(6), jnp.float32(12))
    found = noised(total, jax.random.key(0), jnp.float32(0), 10)
    np.testing.assert_array_equal(found.gradient, total.gradient)
    assert float(found.weight) == 10
    assert float(found.loss / found.weight) == 2  # of those that came
