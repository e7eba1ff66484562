"""A client's negatives: items outside its history, drawn uniformly or taken in expectation.

An epoch's draws are a walk through all items outside the history, in steps of a length that is
coprime to their number: start and length are drawn, so every draw meets each of these items with
the same probability, and none is met again before all have been met. The walk can be read in two
ways, which agree: as a list of items (`sample_negatives`), and as how often each item is met
(`count_negatives`), for clients that score the whole catalogue at once. Neither needs rejection.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

_BOUND, _STEPS = 2**24, 64
MOST_PLACES = 2**20  # see `_times`
# Euclid's algorithm for numbers up to 2**20 ends after so many divisions (Lame's theorem).
_DIVISIONS = 29
_UNROLLED = 64


class Walk(NamedTuple):
    """A walk through 0 .. number - 1: place j stands at (start + j * step) modulo number."""

    start: Int[Array, ""]
    step: Int[Array, ""]
    number: Int[Array, ""]

    def first(self, size: int) -> Int[Array, " size"]:
        """Where the first `size` places stand, at most `MOST_PLACES`."""
        far = _times(jnp.arange(size), self.step, self.number)
        return _below(self.start + far, self.number)

    def reverse(self) -> "Reverse":
        """The same walk, to be asked for places; `number` is at most `MOST_PLACES`."""
        return Reverse(self.start, _inverse(self.step, self.number), self.number)


class Reverse(NamedTuple):
    """A walk the other way round: x is where place (x - start) * inverse modulo number stands."""

    start: Int[Array, "*walks"]
    inverse: Int[Array, "*walks"]
    number: Int[Array, "*walks"]

    def met(self, rank: Int[Array, " ranks"], places: Int[Array, ""]) -> Int[Array, " ranks"]:
        """How often the first `places` stand at each `rank`."""
        number = self.number
        far = _below(rank + number - self.start, number)
        place = _times(far, self.inverse, number)
        return places // number + (place < places % number)


@functools.cache
def _primes() -> UInt32[np.ndarray, " steps"]:
    """Above every number of items there can be, so coprime to what is left outside a history."""
    candidates = np.arange(_BOUND + 1, _BOUND + 50 * _STEPS)
    divisors = np.arange(2, int(candidates[-1] ** 0.5) + 1)
    is_prime = np.array([(c % divisors).all() for c in candidates])
    return candidates[is_prime][:_STEPS].astype(np.uint32)


def draw_walk(key: Array, number: Int[Array, ""]) -> Walk:
    """A random walk through 0 .. number - 1; `number` is at least 1."""
    which, start = jax.random.bits(key, (2,), jnp.uint32)
    step = jnp.asarray(_primes())[which % _STEPS]
    start, step = (x % number.astype(jnp.uint32) for x in (start, step))
    return Walk(start.astype(jnp.int32), step.astype(jnp.int32), number)


def sample_negatives(
    key: Array, history: Int[Array, " history"], n_items: int, per_positive: int
) -> Int[Array, "history per_positive"]:
    """Draw `per_positive` negatives for every place of a history, from all items outside it.

    Row r of the result depends on the key and the real history only, never on how many padding
    places follow, so buckets do not change a result. Taking a 32-bit draw modulo the number of
    items favours none by more than n_items / 2**32.

    Args:
        key: of this client, round and epoch.
        history: ascending train items; places past the end hold `n_items`.
        n_items: number of items I; at least one is outside the history.
        per_positive: negatives per place.
    """
    walk = draw_walk(key, n_items - (history < n_items).sum())
    k = walk.first(len(history) * per_positive)
    return outside(history, n_items, k).reshape(len(history), per_positive)


def count_negatives(walk: Reverse, held: "Held", places: Int[Array, ""]) -> Float[Array, " items"]:
    """How often each item is among the first `places` of `sample_negatives`, of the same walk."""
    return jnp.where(held.real, 0, walk.met(held.rank, places)).astype(jnp.float32)


class Held(NamedTuple):
    """A history in the catalogue: which items it has; of the others, the number before each."""

    real: Bool[Array, " items"]
    rank: Int[Array, " items"]


def held(history: Int[Array, " history"], n_items: int) -> Held:
    """Where a history's items stand among all items."""
    before = _up_to(history, jnp.arange(-1, n_items))
    return Held(before[1:] > before[:-1], jnp.arange(n_items) - before[:-1])


def sample_slots(
    key: Array, pool: Int[Array, " pool"], n_items: int, n_places: int, per_positive: int
) -> Int[Array, "places per_positive"]:
    """Draw places of a client's pool uniformly, `per_positive` for every place of a history."""
    walk = draw_walk(key, (pool < n_items).sum())
    return walk.first(n_places * per_positive).reshape(n_places, per_positive)


def draw_pool(
    key: Array, history: Int[Array, " history"], n_items: int, size: int
) -> Int[Array, " size"]:
    """`size` distinct items outside a history, each as likely as any other; `n_items` pads."""
    walk = draw_walk(key, n_items - (history < n_items).sum())
    items = outside(history, n_items, walk.first(size))
    return jnp.where(jnp.arange(size) < walk.number, items, n_items)


def outside(
    history: Int[Array, " history"], n_items: int, k: Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """The k-th item outside a history, counted from 0: it is k + #{j : h_j - j <= k}."""
    gaps = history - jnp.arange(len(history))
    # Padding must count neither as history nor as a gap; n_items is above every k.
    gaps = jnp.where(history < n_items, gaps, n_items)
    return k + _up_to(gaps, k)


def _times(a: Int[Array, "*a"], b: Int[Array, ""], number: Int[Array, ""]) -> Int[Array, "*a"]:
    """A * b modulo `number`, for a up to `MOST_PLACES` and b below `number`, at most 2**24.

    The quotient is found in floats, which accelerators divide many times faster than integers. It
    is at most 2**20 and so off by one at most, even where a device rounds to 21 bits; the product
    and the multiple that is taken off it wrap around 2**32, their difference does not.
    """
    quotient = a.astype(jnp.float32) * (b.astype(jnp.float32) / number.astype(jnp.float32))
    rest = a * b - quotient.astype(jnp.int32) * number
    return _below(jnp.where(rest < 0, rest + number, rest), number)


def _up_to(values: Int[Array, " values"], x: Int[Array, "*x"]) -> Int[Array, "*x"]:
    """How many of the values are at most x.

    Value after value: a sum over an axis of comparisons takes many times as long on CPU and TPU.
    """

    def add(found: Int[Array, "*x"], value: Int[Array, ""]) -> tuple[Int[Array, "*x"], None]:
        return found + (value <= x), None

    return jax.lax.scan(add, jnp.zeros_like(x), values, unroll=min(len(values), _UNROLLED))[0]


def _below(x: Int[Array, "*x"], number: Int[Array, ""]) -> Int[Array, "*x"]:
    """X modulo `number`, for x from 0 to below twice that."""
    return jnp.where(x >= number, x - number, x)


def _inverse(step: Int[Array, ""], number: Int[Array, ""]) -> Int[Array, ""]:
    """The number whose product with `step` is 1 modulo `number`, by Euclid's algorithm."""

    def divide(_: Int[Array, ""], carry: tuple[Array, Array, Array, Array]) -> tuple:
        r, next_r, t, next_t = carry
        quotient = jnp.where(next_r == 0, 0, r // jnp.maximum(next_r, 1))
        done = next_r == 0
        return (
            jnp.where(done, r, next_r),
            jnp.where(done, 0, r - quotient * next_r),
            jnp.where(done, t, next_t),
            jnp.where(done, next_t, t - quotient * next_t),
        )

    first = (number, step, jnp.int32(0), jnp.int32(1))
    *_, found, _ = jax.lax.fori_loop(0, _DIVISIONS, divide, first)
    return jnp.where(found < 0, found + number, found)
