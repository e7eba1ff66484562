"""The devices that JAX finds, CPU cores as devices of their own."""

import contextlib
import functools
import importlib.metadata
import os
import re

import jax
from jax.extend import backend

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import accelerators

_ORDER = "xla_cpu_enable_concurrency_optimized_scheduler"
_LAST_WITH_ORDER = (0, 12)  # of jaxlib


def devices() -> list[jax.Device]:
    """All devices, those of other processes included; this starts JAX.

    That JAX has passed over an accelerator is logged.

    Raises:
        UserError: JAX cannot start the platform that it was told to use.
    """
    try:
        available = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where it is for no GPU at all
        platforms = jax.config.jax_platforms or ""
        reason = " ".join(str(error).split())
        reason = f" ({reason})" if reason else ""
        raise UserError(
            f"JAX_PLATFORMS={platforms}: JAX cannot start it here{reason}, expected {_others()}"
        ) from error
    accelerators.warn_if_refused()
    return available


def begin() -> None:
    """Start JAX with CPU cores as devices of their own, so that what fails does before long work.

    Raises:
        UserError: JAX cannot start the platform that it was told to use.
    """
    split_cpu()
    devices()


def _others() -> str:
    """The platforms that JAX can start in this process, which is about to end."""
    if jax.distributed.is_initialized():  # others would be waited for
        return "a platform that this machine has"
    try:
        jax.config.update("jax_platforms", None)
        backend.clear_backends()
        return " or ".join(sorted(backend.backends()))
    except (RuntimeError, AssertionError):
        return "a JAX that is installed for this machine's devices"


def split_cpu() -> None:
    """Make every CPU core a device of its own, unless JAX runs already or was told otherwise.

    A round is many small operations on a chunk that lies in the cache of one core. Two cores that
    share every such operation are slower than two that train different clients.
    """
    _meet_in_one_order()
    # JAX says -1 where it was not told.
    wanted = max(jax.config.jax_num_cpu_devices, _forced_devices())
    if wanted > 0:
        _wait_on_threads_of_their_own(wanted)
        return
    try:
        jax.config.update("jax_num_cpu_devices", _usable_cores())
    except RuntimeError:  # JAX runs already
        return


def meet_at(address: str) -> None:
    """Let CPU devices of several processes exchange numbers at this address of this process.

    JAX has no public setting for it. Left alone, it listens at what this host's own name means:
    an address that others may not reach, or that more of them reach than should.
    """
    # Another version of JAX may keep it elsewhere; then what JAX does alone has to do.
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src.lib import _jax

        _jax.make_gloo_tcp_collectives = functools.partial(
            _jax.make_gloo_tcp_collectives, hostname=address
        )


def _meet_in_one_order() -> None:
    """Let XLA's programs on CPU devices come to collectives in one order.

    XLA's other order lets whatever is ready run first. A collective waits on a thread for the other
    devices, and there is a thread a device: two devices that wait in two collectives wait forever.
    XLA ends the process at a flag that it does not know, so newer versions than were tried do
    without it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    if _ORDER not in flags and version <= _LAST_WITH_ORDER:
        os.environ["XLA_FLAGS"] = f"{flags} --{_ORDER}=false".strip()


def meet_in_one_order() -> bool:
    """Whether XLA's programs on CPU devices run in one order, which also needs less memory."""
    return f"--{_ORDER}=false" in os.environ.get("XLA_FLAGS", "")


def _forced_devices() -> int:
    """How many devices XLA_FLAGS asks for; 0 where it does not say."""
    match = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    return int(match[1]) if match else 0


def _wait_on_threads_of_their_own(devices: int) -> None:
    """Give XLA a thread for each of more devices than there are cores.

    A collective waits for the other devices on a thread of a pool. XLA makes one thread a core, or
    NPROC: with fewer threads than devices, all may wait for a device that none is left for. More
    threads than devices make a round slower.
    """
    if devices > _usable_cores():
        os.environ.setdefault("NPROC", str(devices))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
