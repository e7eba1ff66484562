"""Gaussian noise on what the server learns from a cohort.

METHOD "Privacy options". Noise on the clipped sum gives (epsilon, delta)-differential privacy of a
user (McMahan et al. 2018, arXiv 1710.06963); `analysis/privacy.py` says how much. Noise on the mean
gradient of unclipped clients, the paper's experiment, gives no such guarantee.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.protocol import CohortSum


def noised(total: CohortSum, key: Array, deviation: Float[Array, ""], cohort: int) -> CohortSum:
    """The sum of clipped uploads with noise of standard deviation `deviation` on every number.

    All clients count the same, and the denominator is the number that were asked, so that neither
    tells who took part. The loss is the simulator's own and gets no noise.
    """
    # There are no `squares`: clipped clients hand over all rows one by one.
    gradient, shared = with_noise((total.gradient, total.shared), key, deviation)
    weight = jnp.float32(cohort)
    return CohortSum(gradient, shared, weight, total.loss * weight / jnp.maximum(total.weight, 1))


def with_noise(tree: Any, key: Array, deviation: Float[Array, ""]) -> Any:
    """The tree with independent Gaussian noise on every number."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [
        leaf + deviation * jax.random.normal(jax.random.fold_in(key, n), leaf.shape)
        for n, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)
