"""Random streams: every draw is keyed by (seed, purpose, round, client).

So no result depends on chunks, buckets, devices or restarts.
"""

import jax
from jaxtyping import Array, Int, UInt32

Words = UInt32[Array, " words"]

(
    SERVER,
    PRIVATE,
    COHORT,
    CLIENT,
    TIES,
    SAMPLE,
    POOL,
    DROPOUT,
    NOISE,
    LATE,
    CLOCK,
    ROUNDING,
) = range(12)


def from_seed(seed: int) -> Words:
    """A run's key as raw words, which a checkpoint can hold."""
    return jax.random.key_data(jax.random.key(seed))


def stream(words: Words, purpose: int) -> Array:
    """The key of one purpose, from the run's key."""
    return jax.random.fold_in(jax.random.wrap_key_data(words), purpose)


def for_round(words: Words, purpose: int, number: Int[Array, ""] | int) -> Array:
    """The key of one purpose in one round."""
    return jax.random.fold_in(stream(words, purpose), number)
