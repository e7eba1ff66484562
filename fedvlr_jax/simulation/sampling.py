"""Uniform samples of clients: cohorts of a round, and the clients that are evaluated."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def choose_clients(
    key: Array, client: Int[Array, " rows"], n_clients: int, size: int
) -> Bool[Array, " rows"]:
    """Which rows belong to a uniform sample of `size` clients without replacement; 0 takes all.

    The sample depends on the key and the client ids only, not on how rows lie on devices. Padding
    rows have a negative id and are never chosen.
    """
    if not size:
        return client >= 0
    # The clients with the smallest of independent random numbers are a uniform sample. Finding the
    # size-th smallest bit by bit costs a third of sorting them.
    number = jax.random.bits(key, (n_clients,), jnp.uint32)

    def decide(bit: Array, bound: Array) -> Array:
        higher = bound | (jnp.uint32(1) << (31 - bit).astype(jnp.uint32))
        return jnp.where((number < higher).sum() < size, higher, bound)

    bound = jax.lax.fori_loop(0, 32, decide, jnp.uint32(0))
    below, at = number < bound, number == bound
    taken = below | (at & (jnp.cumsum(at) <= size - below.sum()))
    return taken.at[client].get(mode="fill", fill_value=False, wrap_negative_indices=False)
