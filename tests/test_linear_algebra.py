"""Inverses, their gradient, and singular vectors by rotations, against those of LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.linear_algebra import inverse, left_singular

found_by = jax.jit(left_singular)


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


def matrix(rows, values, seed=0):
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((rows, len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((len(values),) * 2))
    return (left * values @ right.T).astype("f4"), left


@pytest.mark.parametrize(
    "values",
    [[3.0], [3.0, 1.0], [5.0, 2.0, 1.0], 9 * 0.8 ** np.arange(24), 1e4 * 0.7 ** np.arange(11)],
    ids=len,
)
def test_they_are_those_of_lapack(values):
    z, left = matrix(60, np.array(values))
    vectors, found = found_by(z)
    np.testing.assert_allclose(found, values, atol=3e-6 * values[0])
    np.testing.assert_allclose(np.abs((vectors * left).sum(axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)


def test_equal_values_have_some_orthogonal_vectors():
    z, left = matrix(60, np.array([4.0, 4.0, 4.0, 1.0, 1.0]))
    vectors, found = found_by(z)
    np.testing.assert_allclose(found, [4, 4, 4, 1, 1], atol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, left @ left.T, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_what_is_not_there_is_zero(rank):
    z, left = matrix(60, np.r_[np.arange(rank, 0, -1.0), np.zeros(9 - rank)])
    vectors, found = found_by(z if rank else np.zeros_like(z))
    np.testing.assert_allclose(found[:rank], np.arange(rank, 0, -1), atol=1e-5)
    assert not found[rank:].any()
    assert not vectors[:, rank:].any()
    first = left[:, :rank]
    np.testing.assert_allclose(vectors @ vectors.T, first @ first.T, atol=1e-5)


def test_what_is_not_finite_ends():
    assert not np.isfinite(found_by(np.full((6, 4), np.nan, "f4"))[0]).any()
