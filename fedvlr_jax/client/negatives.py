"""Uniform negatives over items that are not in one client's history, without rejection."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, UInt32

_BOUND, _STEPS = 2**24, 64
_UNROLLED = 64


@functools.cache
def _primes() -> UInt32[np.ndarray, " steps"]:
    """Above every number of items there can be, so coprime to what is left outside a history."""
    candidates = np.arange(_BOUND + 1, _BOUND + 50 * _STEPS)
    divisors = np.arange(2, int(candidates[-1] ** 0.5) + 1)
    is_prime = np.array([(c % divisors).all() for c in candidates])
    return candidates[is_prime][:_STEPS].astype(np.uint32)


def sample_negatives(
    key: Array, history: Int[Array, " history"], n_items: int, per_positive: int
) -> Int[Array, "history per_positive"]:
    """Draw `per_positive` negatives for every place of a history, from all items outside it.

    Row r of the result depends on the key and the real history only, never on how many padding
    places follow (JAX's partitionable threefry counts draws by their position), so buckets do not
    change a result. Taking a 32-bit draw modulo the pool favours no item by more than
    n_items / 2**32.

    Args:
        key: of this client, round and epoch.
        history: ascending train items; places past the end hold `n_items`.
        n_items: number of items I; at least one is outside the history.
        per_positive: negatives per place.
    """
    number = n_items - (history < n_items).sum()
    k = _below(key, (len(history), per_positive), number)
    return outside(history, n_items, k)


def sample_slots(
    key: Array, pool: Int[Array, " pool"], n_items: int, n_places: int, per_positive: int
) -> Int[Array, "places per_positive"]:
    """Draw places of a client's pool uniformly, `per_positive` for every place of a history."""
    return _below(key, (n_places, per_positive), (pool < n_items).sum())


def draw_pool(
    key: Array, history: Int[Array, " history"], n_items: int, size: int
) -> Int[Array, " size"]:
    """`size` distinct items outside a history, each as likely as any other; `n_items` pads.

    A walk through all items outside the history with a step that is coprime to their number meets
    none twice. Start and step are drawn, so nothing has to be stored to draw the same pool again.
    size * n_items must be below 2**32.
    """
    number = (n_items - (history < n_items).sum()).astype(jnp.uint32)
    which, start = jax.random.bits(key, (2,), jnp.uint32)
    step = jnp.asarray(_primes())[which % _STEPS] % number
    place = jnp.arange(size, dtype=jnp.uint32)
    k = (start % number + place * step % number) % number
    items = outside(history, n_items, k.astype(jnp.int32))
    return jnp.where(place < number, items, n_items)


def outside(
    history: Int[Array, " history"], n_items: int, k: Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """The k-th item outside a history, counted from 0: it is k + #{j : h_j - j <= k}."""
    gaps = history - jnp.arange(len(history))
    # Padding must count neither as history nor as a gap; n_items is above every k.
    gaps = jnp.where(history < n_items, gaps, n_items)
    return _plus_each(k, lambda gap: gap <= k, gaps)


def counted(items: Int[Array, " n"], n_items: int) -> Float[Array, " items"]:
    """How often each item is among `items`; ids outside the catalogue are dropped.

    By comparing each with all ids: TPUs scatter one number at a time.
    """
    ids = jnp.arange(n_items)
    found = _plus_each(jnp.zeros(n_items), lambda item: ids == item, items)
    # Without a barrier XLA works it out anew for each of its readers.
    return jax.lax.optimization_barrier(found)


def _plus_each(
    start: Num[Array, "*shape"],
    compared: Callable[[Int[Array, ""]], Bool[Array, "*shape"]],
    values: Int[Array, " values"],
) -> Num[Array, "*shape"]:
    """`start` and what `compared` makes of every value, added up.

    Value after value: one sum over an axis of comparisons takes many times as long on CPU and TPU.
    """

    def add(
        found: Num[Array, "*shape"], value: Int[Array, ""]
    ) -> tuple[Num[Array, "*shape"], None]:
        return found + compared(value), None

    return jax.lax.scan(add, start, values, unroll=min(len(values), _UNROLLED))[0]


def _below(key: Array, shape: tuple[int, ...], number: Int[Array, ""]) -> Int[Array, "..."]:
    bits = jax.random.bits(key, shape, jnp.uint32)
    return (bits % number.astype(jnp.uint32)).astype(jnp.int32)
