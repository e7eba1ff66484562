"""Memory: what there is on the devices, and this process's peak from the start of a run."""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

from jax.sharding import Mesh

from fedvlr_jax.host import host_bytes
from fedvlr_jax.processes import together

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Start counting anew where the system can (Linux); elsewhere the peak is the process's.

    What earlier runs of this process have left unused is given back to the system first, so that
    it is not counted to the one that begins.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's, which keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Largest resident size since `reset_peak`, in bytes."""
    return _told("VmHWM:")


def now_bytes() -> int:
    """Resident size, in bytes; where the system does not tell it, the largest so far."""
    return _told("VmRSS:")


def _told(name: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def devices_bytes(mesh: Mesh) -> int:
    """Memory of all devices together, in bytes; devices that are CPU cores share the host's.

    Every process is taken to have a host of its own.
    """
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return host_bytes() * together.count()
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", host_bytes()) * mesh.devices.size
