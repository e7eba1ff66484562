"""Devices: one mesh with the single axis `clients`. Every sharding decision is made here."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import together
from fedvlr_jax.processes.cores import split_cpu

AXIS = "clients"
BY_CLIENT = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()


def make_mesh(n_devices: int) -> Mesh:
    """A mesh over the first `n_devices` devices; 0 takes all, those of other processes included.

    Raises:
        UserError: fewer devices are there, or some of several processes would have none.
    """
    split_cpu()
    # Each process has one block of devices, so that its clients are one block, too.
    available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if n_devices > len(available):
        raise UserError(
            f"--devices={n_devices}: expected at most the {len(available)} devices JAX sees"
        )
    if together.count() > 1 and n_devices not in (0, len(available)):
        raise UserError(
            f"--devices={n_devices}: expected all {len(available)} devices of the "
            f"{together.count()} processes"
        )
    return Mesh(np.array(available[: n_devices or None]), (AXIS,))


def own_devices(mesh: Mesh) -> list[int]:
    """Places in the mesh of the devices that belong to this process."""
    own = set(mesh.local_devices)
    return [place for place, device in enumerate(mesh.devices.flat) if device in own]


def by_client(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices."""
    return NamedSharding(mesh, BY_CLIENT)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, EVERYWHERE)


def split(mesh: Mesh, shape: tuple[int, ...], block: Callable[[int], np.ndarray]) -> Array:
    """An array whose rows lie on the devices.

    Args:
        mesh: the devices.
        shape: of one device's block of rows.
        block: place of a device in the mesh -> its block; asked for this process's devices only.
    """
    sharding = by_client(mesh)
    whole = (shape[0] * mesh.devices.size, *shape[1:])
    parts = [jax.device_put(block(k), mesh.devices.flat[k]) for k in own_devices(mesh)]
    return jax.make_array_from_single_device_arrays(whole, sharding, parts)


def split_evenly(mesh: Mesh, rows: np.ndarray, dtype: Any) -> Array:
    """Rows over the devices as `dtype`, with rows of zeros to make their number fit."""
    size = -(-len(rows) // mesh.devices.size)

    def block(device: int) -> np.ndarray:
        found = np.zeros((size, *rows.shape[1:]), dtype)
        own = rows[device * size : (device + 1) * size]
        found[: len(own)] = own
        return found

    return split(mesh, (size, *rows.shape[1:]), block)


def copied(mesh: Mesh, tree: Any) -> Any:
    """Arrays, the same in every process, with a full copy on every device."""
    return jax.tree.map(lambda leaf: _copied(mesh, leaf), tree)


def _copied(mesh: Mesh, leaf: Any) -> Array:
    if together.count() == 1:
        return jax.device_put(leaf, everywhere(mesh))
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, everywhere(mesh), lambda index: leaf[index])
