"""Many items through a frozen encoder: fixed batches on all devices, loaded while they compute.

    worker threads   load item -> array; at most `_AHEAD` batches are loaded or loading
    this thread      stack and pad a batch, start it on the devices, hand on the one before

Memory is bounded by the batch and `_AHEAD`, whatever the number of items.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Shaped

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import cores

_AHEAD = 3
_MOST_WORKERS = 16
_AXIS = "batch"


@dataclass
class Timing:
    """Wall seconds of an encoding: in all, and with the devices idle because inputs were missing.

    `idle` is an upper bound: a wait during which the running batch ended counts in full.
    """

    total: float = 0.0
    idle: float = 0.0


@dataclass(frozen=True)
class Encoder:
    """One tower of a frozen model and how it is run.

    Attributes:
        embed: params and a batch of inputs -> rows of norm 1, float32; pure.
        params: the frozen weights.
        blank: an input that pads the last batch and stands for items that have none.
        batch: items at once, rounded up to a multiple of the number of devices.
        workers: threads that load inputs; 0 takes one per core, 16 at most.
        devices: number of devices; 0 takes all.
    """

    embed: Callable[[Any, Array], Float[Array, "batch width"]]
    params: Any
    blank: Shaped[np.ndarray, "..."]
    batch: int
    workers: int = 0
    devices: int = 0

    def rows(
        self,
        load: Callable[[int], np.ndarray | None],
        start: int,
        stop: int,
        timing: Timing | None = None,
    ) -> Iterator[Float[np.ndarray, "batch width"]]:
        """Embeddings of the items `start` to `stop` in order, batch by batch.

        Args:
            load: number of an item -> its input, always of one shape and type, or None if it has
                none; called in threads.
            start: first item.
            stop: one past the last item.
            timing: told where the time went.

        Yields:
            Rows, NaN for an item without input.

        Raises:
            UserError: an embedding is not finite, or JAX has no devices here.
        """
        begun, timing = time.perf_counter(), timing or Timing()
        mesh = Mesh(np.array(cores.devices()[: self.devices or None]), (_AXIS,))
        split = NamedSharding(mesh, PartitionSpec(_AXIS))
        program = jax.jit(self.embed, out_shardings=split)
        params = jax.device_put(self.params, NamedSharding(mesh, PartitionSpec()))
        size = -(-self.batch // mesh.size) * mesh.size
        waiting: deque[list[Future]] = deque()
        firsts = iter(range(start, stop, size))
        running: _Batch | None = None
        pool = ThreadPoolExecutor(self.workers or min(os.cpu_count() or 1, _MOST_WORKERS))
        try:
            while True:
                while len(waiting) < _AHEAD and (first := next(firsts, None)) is not None:
                    items = range(first, min(first + size, stop))
                    waiting.append([pool.submit(load, item) for item in items])
                if not waiting:
                    break
                asked = time.perf_counter()
                inputs = [future.result() for future in waiting.popleft()]
                if running is None or running.embedded.is_ready():
                    timing.idle += time.perf_counter() - asked
                filled = [self.blank if x is None else x for x in inputs]
                batch = np.stack(filled + [self.blank] * (size - len(inputs)))
                embedded = program(params, jax.device_put(batch, split))
                if running is not None:
                    yield running.rows()
                running = _Batch(embedded, np.array([x is not None for x in inputs]))
            if running is not None:
                yield running.rows()
        finally:
            pool.shutdown(cancel_futures=True)
            timing.total += time.perf_counter() - begun


@dataclass(frozen=True)
class _Batch:
    """A batch on the devices, and which of its items have an input."""

    embedded: Float[Array, "padded width"]
    there: Bool[np.ndarray, " batch"]

    def rows(self) -> Float[np.ndarray, "batch width"]:
        rows = np.asarray(self.embedded)[: len(self.there)]
        if not np.isfinite(rows[self.there]).all():
            raise UserError(
                "--clip: an embedding is not finite, expected numbers; --precision=float32 may help"
            )
        return np.where(self.there[:, None], rows, np.nan)
