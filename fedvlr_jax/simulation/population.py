"""All clients' data on the devices: compressed histories, and buckets of padded widths.

Row r of every array with a leading client axis is client r; rows are padded to a multiple of the
devices, and device k owns the k-th block. Histories stay compressed (CSR) on the device and are
padded only in the chunk that is being trained, each to the width of its length's bucket.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from fedvlr_jax.client.model import ClientData
from fedvlr_jax.data.types import Interactions
from fedvlr_jax.simulation.mesh import by_client

NO_ITEM = -1


class Population(NamedTuple):
    """Every client's data, sharded over the devices by its leading axis.

    `client` is the id (-1 in padding rows), `length` the number of train items, `offset` where
    they start in the owning device's block of `items`; `valid` and `test` are the held-out items,
    -1 where there is none.
    """

    client: Int[Array, " rows"]
    length: Int[Array, " rows"]
    offset: Int[Array, " rows"]
    valid: Int[Array, " rows"]
    test: Int[Array, " rows"]
    items: Int[Array, " interactions"]


class Bucket(NamedTuple):
    """Clients with more than `above` and at most `width` train items, `chunk` of them at a time."""

    above: int
    width: int
    chunk: int


@dataclass(frozen=True)
class Chunking:
    """How many floats a chunk may hold, or a fixed number of clients in it."""

    floats: int
    fixed: int = 0

    def clients(self, floats_per_client: int) -> int:
        """Clients in one chunk, between 1 and 512, or the fixed number if one is set."""
        return self.fixed or int(np.clip(self.floats // floats_per_client, 1, 512))


def place(interactions: Interactions, mesh: Mesh) -> Population:
    """Put all clients' data on the devices of `mesh`."""
    n_devices = mesh.devices.size
    n_clients = interactions.n_clients
    rows = -(-n_clients // n_devices)
    starts = np.minimum(np.arange(n_devices + 1) * rows, n_clients)
    spans = interactions.offsets[starts]
    block = max(int(np.diff(spans).max()), 1)
    items = np.full((n_devices, block), interactions.n_items, np.int32)
    offset = np.zeros(n_devices * rows, np.int32)
    for device in range(n_devices):
        first, last = spans[device], spans[device + 1]
        items[device, : last - first] = interactions.items[first:last]
        owned = slice(starts[device], starts[device + 1])
        offset[owned] = interactions.offsets[owned] - first

    def padded(values: np.ndarray, fill: int) -> np.ndarray:
        filler = np.full(n_devices * rows - n_clients, fill)
        return np.concatenate([values, filler]).astype(np.int32)

    population = Population(
        client=padded(np.arange(n_clients), NO_ITEM),
        length=padded(interactions.lengths, 0),
        offset=offset,
        valid=padded(interactions.valid, NO_ITEM),
        test=padded(interactions.test, NO_ITEM),
        items=items.ravel(),
    )
    return jax.device_put(population, by_client(mesh))


def histories(
    population: Population, rows: Int[Array, " chunk"], width: int, n_items: int
) -> ClientData:
    """Data of the clients in `rows`, histories padded with `n_items` to `width`, stacked.

    Rows past the last one are filled with clients that have an empty history.
    """
    length = population.length.at[rows].get(mode="fill", fill_value=0)
    offset = population.offset.at[rows].get(mode="fill", fill_value=0)
    client = population.client.at[rows].get(mode="fill", fill_value=NO_ITEM)
    place = jnp.arange(width, dtype=jnp.int32)
    items = population.items.at[offset[:, None] + place].get(mode="clip")
    return ClientData(client, jnp.where(place < length[:, None], items, n_items))


def bucket_widths(lengths: Int[np.ndarray, " clients"], n_buckets: int) -> tuple[int, ...]:
    """Widths of at most `n_buckets` buckets that pad the least, by dynamic programming.

    Args:
        lengths: history length of every client, at least 1.
        n_buckets: how many widths to use at most.

    Returns:
        Ascending widths, the last one the longest history.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    n = len(distinct)
    below = np.concatenate([[0], np.cumsum(counts)])
    # cost[i]: padded places of the first i distinct lengths; cuts[k][i]: where bucket k starts.
    cost = np.concatenate([[0.0], np.full(n, np.inf)])
    cuts = []
    for _ in range(min(n_buckets, n)):
        start, end = np.arange(n + 1)[:, None], np.arange(n + 1)[None, :]
        widths = distinct[np.maximum(end - 1, 0)]
        total = np.where(start < end, cost[:, None] + widths * (below[end] - below[start]), np.inf)
        total[0, 0] = 0
        cuts.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    widths, end = [], n
    for cut in reversed(cuts):
        if end > 0:
            widths.append(int(distinct[end - 1]))
            end = int(cut[end])
    return tuple(reversed(widths))


def make_buckets(
    widths: tuple[int, ...], chunking: Chunking, floats_per_place: int, floats_per_client: int
) -> tuple[Bucket, ...]:
    """Buckets with their chunk sizes.

    Args:
        widths: ascending padded widths.
        chunking: how large a chunk may be.
        floats_per_place: floats that every history place of a client needs at a time.
        floats_per_client: floats that a client needs beside those.
    """
    above = (0, *widths[:-1])
    return tuple(
        Bucket(a, w, chunking.clients(w * floats_per_place + floats_per_client))
        for a, w in zip(above, widths, strict=True)
    )
