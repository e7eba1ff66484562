"""Uniform samples of clients: cohorts of a round, and the clients that are evaluated."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

_AVAILABILITY = 7  # seed of clients' availability: that of the population, whatever the run


def choose_clients(
    key: Array,
    client: Int[Array, " rows"],
    n_clients: int,
    size: int | Int[Array, ""],
    skew: float = 0.0,
    among: Bool[Array, " clients"] | None = None,
) -> Bool[Array, " rows"]:
    """Which rows belong to a sample of `size` clients without replacement; 0 takes all.

    With `among` only some clients can be sampled, and a `size` of 0 that is traced takes nobody;
    all of them are where there are not more.

    The sample is uniform where `skew` is 0. Otherwise every client has an availability of its own,
    the same in every round, whose logarithm is normal with standard deviation `skew`: the next
    client of a cohort is drawn in proportion to it among those that are left.

    The sample depends on the key and the client ids only, not on how rows lie on devices. Padding
    rows have a negative id and are never chosen.
    """
    if isinstance(size, int) and not size:
        return client >= 0
    # The clients with the smallest of independent random numbers are a uniform sample.
    number = jax.random.bits(key, (n_clients,), jnp.uint32)
    if skew:
        # Independent exponential clocks, each with its client's rate: the first to ring are such a
        # sample (Efraimidis and Spirakis 2006). Positive floats are ordered like their bits.
        rate = jnp.exp(skew * jax.random.normal(jax.random.key(_AVAILABILITY), (n_clients,)))
        clock = -jnp.log1p(-(number.astype(jnp.float32) / 2.0**32).clip(max=1 - 2**-24)) / rate
        number = jax.lax.bitcast_convert_type(clock, jnp.uint32)

    if among is not None:
        number = jnp.where(among, number, jnp.uint32(0xFFFFFFFF))
    bound = smallest(number, size)
    below, at = number < bound, number == bound
    taken = below | (at & (jnp.cumsum(at) <= size - below.sum()))
    if among is not None:
        taken &= among
    return taken.at[client].get(mode="fill", fill_value=False, wrap_negative_indices=False)


def smallest(numbers: UInt32[Array, " n"], place: int | Int[Array, ""]) -> UInt32[Array, ""]:
    """The `place`-th smallest of some numbers, counted from 1.

    Bit by bit, which costs a third of sorting them.
    """

    def decide(bit: Array, bound: Array) -> Array:
        higher = bound | (jnp.uint32(1) << (31 - bit).astype(jnp.uint32))
        return jnp.where((numbers < higher).sum() < place, higher, bound)

    return jax.lax.fori_loop(0, 32, decide, jnp.uint32(0))
