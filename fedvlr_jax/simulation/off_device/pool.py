"""Memory for segments: a fixed number of buffers, handed out, given back and used again.

The system finds room for memory when it is first touched, which can take longer than filling it
does, above all on virtual machines. So buffers are never returned to the system, and those that
will be needed are touched ahead, while the programs are being compiled.
"""

import threading

import numpy as np
from jaxtyping import Float32

_PAGE = 1024  # floats


class Pool:
    """Buffers of one shape.

    Args:
        rows: states in a buffer.
        numbers: floats of a state.
        most: how many buffers there may be.
        soon: how many of them will be needed for sure, and are touched in the background.
    """

    def __init__(self, rows: int, numbers: int, most: int, soon: int) -> None:
        self._shape = (rows, numbers)
        self._most = most
        self._made = 0
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._touch, args=(min(soon, most),), daemon=True)
        self._thread.start()

    @property
    def rows(self) -> int:
        """States in a buffer."""
        return self._shape[0]

    def take(self) -> Float32[np.ndarray, "rows numbers"] | None:
        """A buffer, None when all are taken."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make()

    def give(self, buffer: Float32[np.ndarray, "rows numbers"]) -> None:
        """Take a buffer back."""
        with self._lock:
            self._free.append(buffer)

    def close(self) -> None:
        """Stop touching memory and let go of all that is free."""
        self._closed = True
        self._thread.join()
        self._free.clear()

    def _make(self) -> np.ndarray | None:
        with self._lock:
            if self._made == self._most:
                return None
            self._made += 1
        return np.empty(self._shape, np.float32)

    def _touch(self, soon: int) -> None:
        while not self._closed and self._made < soon:
            buffer = self._make()
            if buffer is None:
                return
            buffer.ravel()[::_PAGE] = 0
            self.give(buffer)
