"""A wave: some clients, dealt out over the devices, with their data and private states."""

from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from fedvlr_jax.data.types import Interactions
from fedvlr_jax.simulation.mesh import split
from fedvlr_jax.simulation.off_device.bring import INITIAL, STORED
from fedvlr_jax.simulation.off_device.store import Store
from fedvlr_jax.simulation.population import NO_CLIENT, Population, place

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Wave:
    """What one call of a program needs of its clients.

    Attributes:
        clients: ids of each device's clients, -1 in unused rows.
        population: their data, on the devices.
        source: where each state is, see `Sources`.
        stored: the states that came from the store, on the devices; other rows hold anything.
    """

    clients: Int[np.ndarray, "devices rows"]
    population: Population
    source: Int[Array, " all_rows"]
    stored: Float[Array, "all_rows numbers"]


@dataclass(frozen=True)
class Layout:
    """The fixed shapes of every wave.

    Attributes:
        mesh: the devices.
        rows: clients of one device.
        room: train items that one device has room for.
        numbers: floats of one private state.
    """

    mesh: Mesh
    rows: int
    room: int
    numbers: int

    @property
    def size(self) -> int:
        """Clients of one wave."""
        return self.rows * self.mesh.devices.size


def layout(mesh: Mesh, lengths: Int[np.ndarray, " clients"], size: int, numbers: int) -> Layout:
    """Shapes for waves of up to `size` clients, whoever they are."""
    rows = -(-size // mesh.devices.size)
    longest = np.partition(lengths, max(len(lengths) - rows, 0))[-rows:]
    return Layout(mesh, rows, int(longest.sum()), numbers)


def prepare(
    layout: Layout,
    interactions: Interactions,
    store: Store,
    clients: Int[np.ndarray, " n"],
    before: Int[np.ndarray, "devices rows"],
    host: list[Float32[np.ndarray, "rows numbers"]],
) -> Wave:
    """Bring a wave to the devices.

    Args:
        layout: the shapes.
        interactions: everybody's data.
        store: the states of all waves but the last.
        clients: ids, at most `layout.size`.
        before: the clients of the last wave, whose states are still on the devices.
        host: where states are put for each device; must not change while the wave is in use.
    """
    dealt = _deal(clients, before)
    source = np.full(dealt.shape, INITIAL, np.int32)
    for device, (own, last) in enumerate(zip(dealt, before, strict=True)):
        real = own >= 0
        order = np.argsort(last)
        place_before = order[np.minimum(np.searchsorted(last, own, sorter=order), len(last) - 1)]
        recent = real & (last[place_before] == own)
        source[device, recent] = place_before[recent]
        known = real & ~recent
        known[known] = store.has(own[known])
        source[device, known] = STORED
        rows = np.flatnonzero(known)
        store.fetch(own[rows], host[device], rows)
    return Wave(
        clients=dealt,
        population=place(interactions, dealt, layout.mesh, layout.room),
        source=split(layout.mesh, (layout.rows,), source.__getitem__),
        stored=split(layout.mesh, (layout.rows, layout.numbers), host.__getitem__),
    )


def host_buffers(layout: Layout) -> list[Float32[np.ndarray, "rows numbers"]]:
    """A buffer for each device, aligned so that a CPU device takes it without a copy."""
    size = layout.rows * layout.numbers
    buffers = []
    for _ in range(layout.mesh.devices.size):
        raw = np.empty(size + _ALIGNMENT // 4, np.float32)
        start = -raw.ctypes.data % _ALIGNMENT // 4
        buffers.append(raw[start : start + size].reshape(layout.rows, layout.numbers))
    return buffers


def nobody(layout: Layout) -> Int[np.ndarray, "devices rows"]:
    """The clients of a wave that does not exist."""
    return np.full((layout.mesh.devices.size, layout.rows), NO_CLIENT, np.int32)


def _deal(
    clients: Int[np.ndarray, " n"], before: Int[np.ndarray, "devices rows"]
) -> Int[np.ndarray, "devices rows"]:
    """Clients to devices: those of the last wave stay where they were, the others fill up.

    Devices get equal shares, unless more clients than that stay.
    """
    n_devices, rows = before.shape
    dealt = np.full(before.shape, NO_CLIENT, np.int32)
    others = clients[~np.isin(clients, before)]
    share = -(-len(clients) // n_devices)
    stay = [own[np.isin(own, clients) & (own >= 0)] for own in before]
    taken = 0
    for device, own in enumerate(stay):
        count = max(min(share, rows) - len(own), 0)
        own = np.concatenate([own, others[taken : taken + count]])
        taken += count
        dealt[device, : len(own)] = np.sort(own)
    return dealt
