"""Clients' data on the devices: compressed histories, and buckets of padded widths.

Device k owns the k-th block of rows of every array with a leading client axis. Where all clients
are there, row r is client r, and rows are padded to a multiple of the devices. Histories stay
compressed (CSR) on the device and are padded only in the chunk that is being trained, each to the
width of its length's bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from fedvlr_jax.client.model import ClientData
from fedvlr_jax.client.negatives import draw_pool
from fedvlr_jax.data.types import Interactions
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.mesh import by_run_and_client, split

NO_ITEM = NO_CLIENT = -1
# A bucket costs seconds of compilation. A place costs microseconds of a round, and a fiftieth of
# that in an evaluation: so many pay for a bucket within about a hundred rounds.
TRAINING_PLACES, EVALUATION_PLACES = 10_000, 500_000
# Clients in a chunk. Of larger ones a TPU's own memory does not hold all states: twice as many are
# a tenth faster by its compiler's estimates and need four times the memory (docs/scaling.md).
MOST_CLIENTS = 512


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
    """Clients with more than `above` and at most `width` train items, `chunk` of them at a time.

    Each needs `floats` of memory while its chunk is there.
    """

    above: int
    width: int
    chunk: int
    floats: int


@dataclass(frozen=True)
class Chunking:
    """How many floats and clients a chunk may hold, or a fixed number of clients in it."""

    floats: int
    fixed: int = 0
    most: int = MOST_CLIENTS

    def clients(self, floats_per_client: int) -> int:
        """Clients in one chunk, between 2 and `most`, or the fixed number if one is set.

        Where a chunk is a single client, XLA updates its state by a slice instead of a scatter, and
        copies everybody's state to do so.
        """
        return self.fixed or int(np.clip(self.floats // floats_per_client, 2, self.most))


def in_order(n_clients: int, n_devices: int) -> Int[np.ndarray, "devices rows"]:
    """All clients in blocks of one size, one for each device; `NO_CLIENT` fills the last rows."""
    rows = -(-n_clients // n_devices)
    order = np.full(n_devices * rows, NO_CLIENT, np.int32)
    order[:n_clients] = np.arange(n_clients)
    return order.reshape(n_devices, rows)


def place(
    interactions: Interactions,
    clients: Int[np.ndarray, "devices rows"],
    mesh: Mesh,
    room: int = 0,
) -> Population:
    """Put the data of clients on the devices of `mesh`.

    Args:
        interactions: everybody's data, the train items of this process's clients at least.
        clients: ids of each device's clients; `NO_CLIENT` may only follow them.
        mesh: the devices.
        room: train items that every device has room for, where that is more than it needs.
    """
    real = clients >= 0
    ids = clients[real]
    length = _lengths(interactions, clients)
    offset = np.cumsum(length, axis=1, dtype=np.int64) - length
    used = length.sum(axis=1)
    n_rows, n_places = clients.shape[1], max(room, int(used.max()), 1)

    def items(device: int) -> np.ndarray:
        # Where every item of the block stands in the flat array of this process's interactions.
        starts = np.zeros(n_rows, np.int64)
        starts[real[device]] = interactions.starts(clients[device][real[device]])
        of_row = np.repeat(starts - offset[device], length[device])
        found = np.full(n_places, interactions.n_items, np.int32)
        found[: used[device]] = interactions.items[of_row + np.arange(used[device])]
        return found

    def held_out(values: np.ndarray) -> np.ndarray:
        filled = np.full(clients.shape, NO_ITEM, np.int32)
        filled[real] = values[ids]
        return filled

    rows = (clients, length, offset.astype(np.int32), *map(held_out, interactions.held_out))
    return Population(
        *(split(mesh, (n_rows,), values.__getitem__) for values in rows),
        items=split(mesh, (n_places,), items),
    )


def place_by_run(
    populations: Sequence[Interactions], clients: Int[np.ndarray, "devices rows"], mesh: Mesh
) -> Population:
    """As `place`, where every run has data of its own; stacked by run.

    Args:
        populations: every run's data, of the same clients and items; of one process.
        clients: as in `place`.
        mesh: the devices.
    """
    room = max(int(_lengths(data, clients).sum(axis=1).max()) for data in populations)
    placed = jax.device_get([place(data, clients, mesh, room) for data in populations])
    stacked = jax.tree.map(lambda *runs: np.stack(runs), *placed)
    return jax.device_put(stacked, by_run_and_client(mesh))


def _lengths(
    interactions: Interactions, clients: Int[np.ndarray, "devices rows"]
) -> Int[np.ndarray, "devices rows"]:
    """Number of train items in every row, 0 where there is no client."""
    length = np.zeros(clients.shape, np.int32)
    real = clients >= 0
    length[real] = interactions.lengths[clients[real]]
    return length


def histories(
    population: Population, rows: Int[Array, " chunk"], width: int, n_items: int
) -> ClientData:
    """Data of the clients in `rows`, histories padded with `n_items` to `width`, stacked.

    Rows past the last one are filled with clients that have an empty history.
    """
    length = population.length.at[rows].get(mode="fill", fill_value=0)
    offset = population.offset.at[rows].get(mode="fill", fill_value=0)
    client = population.client.at[rows].get(mode="fill", fill_value=NO_CLIENT)
    place = jnp.arange(width, dtype=jnp.int32)
    items = population.items.at[offset[:, None] + place].get(mode="clip")
    return ClientData(client, jnp.where(place < length[:, None], items, n_items))


def with_pools(data: ClientData, key: keys.Words, n_items: int, size: int) -> ClientData:
    """Data of stacked clients with the pools that their negatives come from; 0 gives none.

    A client's pool depends on the run's key and the client's id and history only.
    """
    if not size:
        return data
    pool_key = keys.stream(key, keys.POOL)

    def pool(data: ClientData) -> Array:
        own = jax.random.fold_in(pool_key, jnp.maximum(data.client, 0))
        return draw_pool(own, data.history, n_items, size)

    return data._replace(pool=jax.vmap(pool)(data))


def worthwhile_widths(
    lengths: Int[np.ndarray, " clients"], share: float, worth: int, most: int = 4
) -> tuple[int, ...]:
    """Widths of as many buckets as save more padding than compiling them costs.

    Args:
        lengths: history length of every client, at least 1.
        share: of the clients that are looked at in a round, above 0 and at most 1.
        worth: places of padding a round that a bucket has to save.
        most: how many widths to use at most.

    Returns:
        See `bucket_widths`.
    """
    widths = bucket_widths(lengths, 1)
    for n_buckets in range(2, most + 1):
        more = bucket_widths(lengths, n_buckets)
        saved = padded_places(lengths, widths) - padded_places(lengths, more)
        if share * saved < worth:
            break
        widths = more
    return widths


def padded_places(lengths: Int[np.ndarray, " clients"], widths: tuple[int, ...]) -> int:
    """History places of all clients, each history padded to its bucket's width."""
    return int(np.array(widths)[np.searchsorted(widths, lengths)].sum())


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
    buckets = []
    for above, width in zip((0, *widths[:-1]), widths, strict=True):
        floats = width * floats_per_place + floats_per_client
        buckets.append(Bucket(above, width, chunking.clients(floats), floats))
    return tuple(buckets)
