"""Join several processes before JAX starts, and part again."""

import os
import sys
import time

import jax
import numpy as np

from fedvlr_jax import compilation
from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import together
from fedvlr_jax.processes.cores import devices, meet_at, split_cpu
from fedvlr_jax.processes.peers import Peers
from fedvlr_jax.processes.place import Place, place_of_flags, place_of_slurm
from fedvlr_jax.processes.tunnel import Tunnel

# Seconds. Hosts of one job may start minutes apart; a lost one must be noticed within one.
_PATIENCE = 300.0
_SILENCE = 30.0
_NEWS = 3.0

_peers: Peers | None = None
_tunnel: Tunnel | None = None


def join_if_told(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Join the other processes that flags or SLURM speak of, if they do.

    Raises:
        UserError: flags that make no sense, or see `join`.
    """
    place = place_of_flags(coordinator, num_processes, process_id) or place_of_slurm()
    if place is not None:
        join(place)


def join(place: Place, patience: float = _PATIENCE, silence: float = _SILENCE) -> None:
    """Make JAX see the devices of all processes, and watch over these from now on.

    Args:
        place: which process this is; with one process, nothing is done.
        patience: seconds to wait for all to turn up.
        silence: seconds after which a process that says nothing counts as lost.

    Raises:
        UserError: not all turn up, or their numbers of devices differ.
    """
    global _peers, _tunnel
    if place.count == 1:
        return
    split_cpu()
    _peers = Peers(place, patience, silence)
    # JAX's own listener to SIGTERM would take it from whoever listens already.
    jax.config.update("jax_enable_preemption_service", False)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Only the first process keeps what it has compiled. At the next start it would wait for the
        # others in the first round for as long as they compile, and might give up.
        compilation.stop()
    _tunnel = Tunnel(list(_peers.jax_links.values()), is_first=place.index == 0)
    try:
        _tunnel.wait_until_ready(patience)
        jax.distributed.initialize(
            _tunnel.address,
            place.count,
            place.index,
            local_device_ids=None if place.local_device is None else [place.local_device],
            cluster_detection_method="deactivate",
            initialization_timeout=int(patience),
            coordinator_bind_address=_tunnel.address,
        )
    finally:
        _tunnel.hide()
    meet_at(_peers.address)
    devices()  # or a sentence
    counts = together.concatenated(np.array([jax.local_device_count()]))
    if len(set(counts.tolist())) > 1:
        raise UserError(
            f"the processes have {', '.join(map(str, counts))} devices, expected the same number "
            "in each"
        )


def has_joined() -> bool:
    """Whether this process has joined others and has not left."""
    return _peers is not None


def hear_of_others() -> None:
    """Give the watch time to end this process, if what went wrong here is that another has died.

    A collective operation fails at once where a connection breaks.
    """
    time.sleep(_NEWS)


def part() -> None:
    """Leave when all processes have come to their end; does nothing where none has joined."""
    global _peers, _tunnel
    if _peers is not None and _tunnel is not None:
        together.wait("end")
        _peers.leave()
        _peers = None
        _tunnel.expect_end()
        jax.distributed.shutdown()
        _tunnel.close()
        _tunnel = None


def abandon(code: int) -> None:
    """End this process by an error, and with it the others; returns where none has joined."""
    if _peers is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        _peers.fail()
        # Not sys.exit: on its way out JAX would wait for the others.
        os._exit(code)
