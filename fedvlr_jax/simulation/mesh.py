"""Devices: one mesh, with an axis of clients and one of runs. Every sharding decision is made here.

A run alone has all devices for its clients. Runs that train together have devices of their own
first, which need not wait for one another, and share what is left between their clients.

A mesh may be of devices that are not there, only described for a compiler. What is put on them
comes to its shape and sharding, all that a program is compiled for.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import cores, together

AXIS, RUNS = "clients", "runs"
BY_CLIENT = PartitionSpec(AXIS)
BY_RUN = PartitionSpec(RUNS)
EVERYWHERE = PartitionSpec()
Placed = Array | jax.ShapeDtypeStruct  # the latter on devices that are only described


def make_mesh(n_devices: int, runs: int = 1) -> Mesh:
    """A mesh over the first `n_devices` devices; 0 takes all, those of other processes included.

    Args:
        n_devices: how many.
        runs: that train together.

    Raises:
        UserError: JAX has no devices here or fewer, or some of several processes would have none.
    """
    cores.split_cpu()
    # Each process has one block of devices, so that its clients are one block, too.
    available = sorted(cores.devices(), key=lambda device: (device.process_index, device.id))
    if n_devices > len(available):
        raise UserError(
            f"--devices={n_devices}: expected at most the {len(available)} devices JAX sees"
        )
    if together.count() > 1 and n_devices not in (0, len(available)):
        raise UserError(
            f"--devices={n_devices}: expected all {len(available)} devices of the "
            f"{together.count()} processes"
        )
    return over(available[: n_devices or None], runs)


def over(devices: Sequence[jax.Device], runs: int = 1) -> Mesh:
    """A mesh over these devices, for as many `runs` that train together."""
    groups = math.gcd(len(devices), runs) if together.count() == 1 else 1
    return Mesh(np.array(devices).reshape(groups, -1), (RUNS, AXIS))


def blocks(mesh: Mesh) -> int:
    """How many blocks clients are split into."""
    return mesh.shape[AXIS]


def by_client(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices."""
    return NamedSharding(mesh, BY_CLIENT)


def by_run(mesh: Mesh) -> NamedSharding:
    """Leading axis, of runs, split over the devices."""
    return NamedSharding(mesh, BY_RUN)


def by_run_and_client(mesh: Mesh) -> NamedSharding:
    """The axis of runs and the next one, of clients, split over the devices."""
    return NamedSharding(mesh, PartitionSpec(RUNS, AXIS))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, EVERYWHERE)


def described(mesh: Mesh) -> bool:
    """Whether the devices are not there, and can be compiled for but hold nothing."""
    return mesh.devices.flat[0] not in cores.devices()


def split(mesh: Mesh, shape: tuple[int, ...], block: Callable[[int], np.ndarray]) -> Placed:
    """An array whose rows lie on the devices; its shape where these are only described.

    Args:
        mesh: the devices.
        shape: of one device's block of rows.
        block: number of a block -> its rows; asked for those of this process's devices only.
    """
    sharding = by_client(mesh)
    whole = (shape[0] * blocks(mesh), *shape[1:])
    if described(mesh):
        return jax.ShapeDtypeStruct(whole, block(0).dtype, sharding=sharding)
    parts = []
    for number, device in enumerate(mesh.devices[0]):
        if device in mesh.local_devices:
            rows = block(number)
            parts += [jax.device_put(rows, device) for device in mesh.devices[:, number]]
    return jax.make_array_from_single_device_arrays(whole, sharding, parts)


def split_evenly(mesh: Mesh, rows: np.ndarray, dtype: Any) -> Placed:
    """Rows over the devices as `dtype`, with rows of zeros to make their number fit."""
    size = -(-len(rows) // blocks(mesh))

    def block(number: int) -> np.ndarray:
        found = np.zeros((size, *rows.shape[1:]), dtype)
        own = rows[number * size : (number + 1) * size]
        found[: len(own)] = own
        return found

    return split(mesh, (size, *rows.shape[1:]), block)


def copied(mesh: Mesh, tree: Any) -> Any:
    """Arrays, the same in every process, with a full copy on every device."""
    return jax.tree.map(lambda leaf: _copied(mesh, leaf), tree)


def _copied(mesh: Mesh, leaf: Any) -> Placed:
    if described(mesh):
        leaf = np.asarray(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere(mesh))
    if together.count() == 1:
        return jax.device_put(leaf, everywhere(mesh))
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, everywhere(mesh), lambda index: leaf[index])
