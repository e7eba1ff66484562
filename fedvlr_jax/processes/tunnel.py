"""JAX's coordination service, reached by the processes of this run and by nobody else.

JAX lets everybody in who can reach the service's port, and one stranger there ends the run. So the
service has no port: it listens at a socket in a folder that only this user can enter. Every other
process has such a socket, too, and what JAX sends there goes to process 0 and back on a connection
that both ends have agreed on (`greeting.py`).

JAX would abort a process without a sentence as soon as it lost the service. So a connection that
ends before the run has is not ended at JAX's side: the watch (`peers.py`) ends the process.
"""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from fedvlr_jax.errors import UserError

_READY = b"+"
_SECONDS_BETWEEN = 0.02
_SECONDS_TO_DRAIN = 5.0
_LONGEST = 80  # characters of a folder; systems allow a socket's path about a hundred
_BLOCK = 1 << 16


class Tunnel:
    """JAX's connections of one process.

    Args:
        links: process 0's connections to all others, or the one of another process to it.
        is_first: whether this is process 0.

    Attributes:
        address: where JAX finds the service, and where process 0's offers it.
    """

    def __init__(self, links: list[socket.socket], is_first: bool) -> None:
        self._links = links
        self._is_first = is_first
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._answering: list[threading.Thread] = []
        self._local: list[socket.socket] = []
        temporary = tempfile.gettempdir()
        self._folder = Path(
            tempfile.mkdtemp(
                prefix="fedvlr_jax-", dir=temporary if len(temporary) < _LONGEST else "/tmp"
            )
        )
        self._path = str(self._folder / "jax")
        self.address = f"unix:{self._path}"
        if is_first:
            for link in links:
                self._answering.append(self._start(self._offer, link))

    def wait_until_ready(self, patience: float) -> None:
        """Wait for process 0's service; JAX then finds it.

        Raises:
            UserError: process 0 does not get that far.
        """
        if self._is_first:
            return
        (link,) = self._links
        link.settimeout(patience)
        try:
            ready = link.recv(1)
        except OSError:
            ready = b""
        if ready != _READY:
            raise UserError("process 0 stopped before JAX had started; start all processes again")
        link.settimeout(None)
        server = socket.socket(socket.AF_UNIX)
        server.bind(self._path)
        server.listen()
        self._local.append(server)
        self._start(self._take, link, server)

    def hide(self) -> None:
        """Remove the socket from the file system, when JAX has connected."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def expect_end(self) -> None:
        """From now on let JAX know when the other side ends."""
        self._ending.set()

    def close(self) -> None:
        """End when JAX has; does not lose its last answers."""
        self.expect_end()
        for thread in self._answering:
            thread.join(_SECONDS_TO_DRAIN)
        for link in (*self._links, *self._local):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        for thread in self._threads:
            thread.join(_SECONDS_TO_DRAIN)
        self.hide()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _offer(self, link: socket.socket) -> None:
        """Process 0's end: connect another process with the service, when this is there."""
        while True:
            local = socket.socket(socket.AF_UNIX)
            try:
                local.connect(self._path)
                break
            except OSError:
                local.close()
                if self._ending.wait(_SECONDS_BETWEEN):
                    return
        self._local.append(local)
        with contextlib.suppress(OSError):  # the watch notices who has gone
            link.sendall(_READY)
        self._start(self._forward, link, local)
        self._forward(local, link)

    def _take(self, link: socket.socket, server: socket.socket) -> None:
        """Another process's end: connect the JAX of this process with process 0."""
        try:
            local, _ = server.accept()
        except OSError:  # closed before JAX came
            return
        self._local.append(local)
        self._start(self._forward, local, link)
        self._forward(link, local)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(_BLOCK):
                sink.sendall(part)
        if self._ending.is_set():
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
