"""CPU cores as devices of their own."""

import os

import jax


def split_cpu() -> None:
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
