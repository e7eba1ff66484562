"""Devices: one mesh with the single axis `clients`. Every sharding decision is made here."""

import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedvlr_jax.errors import UserError

AXIS = "clients"
BY_CLIENT = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()


def make_mesh(n_devices: int) -> Mesh:
    """A mesh over the first `n_devices` devices; 0 takes all.

    Raises:
        UserError: fewer devices are there.
    """
    _split_cpu()
    available = jax.devices()
    if n_devices > len(available):
        raise UserError(
            f"--devices={n_devices}: expected at most the {len(available)} devices JAX sees"
        )
    return Mesh(np.array(available[: n_devices or None]), (AXIS,))


def _split_cpu() -> None:
    """Make every CPU core a device of its own, unless JAX runs already or was told otherwise.

    A round is many small operations on a chunk that lies in the cache of one core. Two cores that
    share every such operation are slower than two that train different clients.
    """
    told = jax.config.jax_num_cpu_devices > 0 or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not told:
        try:
            jax.config.update("jax_num_cpu_devices", _usable_cores())
        except RuntimeError:  # JAX runs already
            return


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def by_client(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices."""
    return NamedSharding(mesh, BY_CLIENT)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, EVERYWHERE)
