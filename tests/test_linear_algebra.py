"""Inverses against NumPy's, and their gradient against LAPACK's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.linear_algebra import inverse


@pytest.mark.parametrize("size", [1, 2, 8, 13, 40, 300])
def test_the_inverse_and_its_gradient(size):
    rng = np.random.default_rng(size)
    rows = rng.standard_normal((size, size)).astype("f4")
    matrix = jnp.asarray(rows @ rows.T / size + np.eye(size, dtype="f4"))
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(size), atol=2e-5)
    weights = jnp.asarray(rng.standard_normal((size, size)), jnp.float32)
    weights = weights + weights.T
    found, expected = (
        jax.grad(lambda x, way=way: (weights * way(x)).sum())(matrix)
        for way in (inverse, jnp.linalg.inv)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
