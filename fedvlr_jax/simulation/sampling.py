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
    order = jax.random.permutation(key, n_clients)
    taken = jnp.zeros(n_clients, bool).at[order[:size]].set(True)
    return taken.at[client].get(mode="fill", fill_value=False, wrap_negative_indices=False)
