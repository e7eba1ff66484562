"""The loop over chunks of clients that training and evaluation share, inside one device.

Each bucket runs as many chunks as its selected clients need: the shapes are static, the number of
iterations is not. So every selected client runs at its own bucket's width, no bucket can overflow,
and a cohort may be any subset.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedvlr_jax.client.model import ClientData
from fedvlr_jax.simulation.population import Bucket, Population, histories

Carry = TypeVar("Carry")
ChunkBody = Callable[[Int[Array, " chunk"], ClientData, Carry], Carry]


def for_each_chunk(
    population: Population,
    selected: Bool[Array, " rows"],
    buckets: tuple[Bucket, ...],
    n_items: int,
    body: ChunkBody,
    carry: Carry,
) -> Carry:
    """Run `body` over all selected clients, chunk by chunk.

    Args:
        population: this device's rows.
        selected: which of them take part.
        buckets: widths and chunk sizes; together they cover every length.
        n_items: the id that pads histories.
        body: (rows, stacked client data, carry) -> carry. `rows` past the last row are unused
            places of the last chunk: their history is empty, and what is written for them must be
            dropped (`mode="drop"`).
        carry: what the first chunk starts from.
    """
    for bucket in buckets:
        fits = (population.length > bucket.above) & (population.length <= bucket.width)

        def chunk(rows: Array, carry: Carry, bucket: Bucket = bucket) -> Carry:
            return body(rows, histories(population, rows, bucket.width, n_items), carry)

        carry = for_each_row(selected & fits, bucket.chunk, chunk, carry)
    return carry


def for_each_row(
    chosen: Bool[Array, " rows"],
    size: int,
    body: Callable[[Int[Array, " chunk"], Carry], Carry],
    carry: Carry,
) -> Carry:
    """Run `body` over the chosen rows, `size` of them at a time; the last ones may be past the end.

    Args:
        chosen: which rows.
        size: of a chunk.
        body: (rows, carry) -> carry.
        carry: what the first chunk starts from.
    """
    n_rows = chosen.shape[0]
    places = -(-n_rows // size) * size
    order = jnp.nonzero(chosen, size=places, fill_value=n_rows)[0].astype(jnp.int32)

    def chunk(index: Array, carry: Carry) -> Carry:
        return body(jax.lax.dynamic_slice_in_dim(order, index * size, size), carry)

    return jax.lax.fori_loop(0, same_in_all(-(-chosen.sum() // size)), chunk, carry)


@jax.custom_batching.custom_vmap
def same_in_all(number: Int[Array, ""]) -> Int[Array, ""]:
    """The number itself; where several runs train together, the largest, the same for all.

    Batched trip counts would make a loop choose between the old and the new of everything that it
    carries, all private states, in every iteration. A run's surplus chunks are empty.
    """
    return number


@same_in_all.def_vmap
def _largest(_: int, batched: list[bool], number: Array) -> tuple[Array, bool]:
    return (number.max() if batched[0] else number), False
