"""What one process asks of all: their numbers, their rows, and what the first one says.

Everything here is called by all processes in the same order. With a single process nothing is
communicated, and JAX is not started.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fedvlr_jax.errors import UserError


def count() -> int:
    """Number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to people."""
    return count() == 1 or jax.process_index() == 0


def own_clients(n_clients: int) -> range:
    """The clients whose data and private state this process's devices hold: one block of rows."""
    if count() == 1:
        return range(n_clients)
    rows = -(-n_clients // jax.device_count()) * jax.local_device_count()
    first = min(jax.process_index() * rows, n_clients)
    return range(first, min(first + rows, n_clients))


def wait(name: str) -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def concatenated(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of these; each may have another number of rows."""
    if count() == 1:
        return rows
    # As bytes: JAX would turn 64-bit numbers into 32-bit ones.
    raw = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(raw)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(raw)] = raw
    parts = multihost_utils.process_allgather(padded)
    joined = np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return joined.view(rows.dtype).reshape(-1, *rows.shape[1:])


def total(values: np.ndarray) -> np.ndarray:
    """The sum over processes; integers wrap around as numpy's do."""
    return concatenated(values[None]).sum(axis=0, dtype=values.dtype)


def first_says(question: Callable[[], bool]) -> bool:
    """The first process's answer; the others do not ask."""
    if count() == 1:
        return question()
    answer = question() if is_first() else False
    return bool(multihost_utils.broadcast_one_to_all(np.uint8(answer)))


def any_says(question: Callable[[], bool]) -> bool:
    """Whether one of the processes says yes; each asks for itself."""
    if count() == 1:
        return question()
    with jax.transfer_guard("allow"):
        return bool(multihost_utils.process_allgather(np.uint8(question())).any())


def check_same(what: str, text: str) -> None:
    """Refuse to go on where processes differ.

    Raises:
        UserError: `text` is not the same in all of them.
    """
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if (concatenated(digest[None]) != digest).any():
        raise UserError(f"the processes have different {what}, expected the same in all of them")


def fetched(tree: Any) -> Any:
    """Arrays on the devices as arrays of numpy, whichever process has their rows."""
    if count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(_fetched, tree)


def _fetched(array: jax.Array) -> np.ndarray:
    if array.is_fully_replicated:
        return jax.device_get(array)
    return multihost_utils.process_allgather(array, tiled=True)
