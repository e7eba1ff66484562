"""Devices: one mesh with the single axis `clients`. Every sharding decision is made here."""

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
    available = jax.devices()
    if n_devices > len(available):
        raise UserError(
            f"--devices={n_devices}: expected at most the {len(available)} devices JAX sees"
        )
    return Mesh(np.array(available[: n_devices or None]), (AXIS,))


def by_client(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices."""
    return NamedSharding(mesh, BY_CLIENT)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, EVERYWHERE)
