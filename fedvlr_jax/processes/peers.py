"""A watch over the other processes: when one ends, all end soon, with a sentence.

A collective operation waits for every process, for ever if one has died. So process 0 holds a
connection to each other process; both ends say every second that they are there. A connection that
closes, or is silent for half a minute, ends the process that notices it, and so all of them.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes.place import Place

_BEAT, _LEFT, _FAILED = b".", b"!", b"x"
_SECONDS_BETWEEN = 1.0
_HELLO = struct.Struct("!II")  # number of processes, index
_PORT = struct.Struct("!H")
_EXIT_CODE = 2


class Peers:
    """The connections of one process; made when all processes have turned up.

    Args:
        place: which process this is.
        patience: seconds to wait for all to turn up.
        silence: seconds after which a process that says nothing counts as lost.

    Raises:
        UserError: not all turned up in time, or they disagree on who is who.

    Attributes:
        port: a free one of process 0's, agreed on by all.
    """

    def __init__(self, place: Place, patience: float, silence: float) -> None:
        self._place = place
        self._silence = silence
        self._ending = False
        until = time.monotonic() + patience
        if place.index == 0:
            self._links, self.port = _gather(place, until, patience)
        else:
            self._links, self.port = _reach(place, until, patience)
        for other, link in self._links.items():
            link.settimeout(silence)
            self._start(lambda other=other, link=link: self._listen(other, link))
        self._start(self._beat)

    def leave(self) -> None:
        """Go after everybody is done."""
        self._end(_LEFT)

    def fail(self) -> None:
        """Tell the others before this process ends by an error of its own."""
        self._end(_FAILED)
        if self._place.index == 0:
            # JAX's service lives in process 0, and its end would abort the others wordlessly.
            time.sleep(2 * _SECONDS_BETWEEN)

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _listen(self, other: int, link: socket.socket) -> None:
        why = "has died"
        try:
            while said := link.recv(64):
                if _LEFT in said:
                    return
                if _FAILED in said:
                    why = "has stopped with an error"
                    break
        except TimeoutError:
            why = f"has not been heard of for {self._silence:g} s"
        except OSError:
            pass
        if not self._ending:
            _say(
                f"error: process {other} {why}, so process {self._place.index} stops; start all "
                "processes again to go on from the last checkpoint"
            )
            self.fail()
            # Not sys.exit: the main thread may wait inside of JAX for ever.
            os._exit(_EXIT_CODE)

    def _beat(self) -> None:
        while not self._ending:
            self._tell(_BEAT)
            time.sleep(_SECONDS_BETWEEN)

    def _end(self, word: bytes) -> None:
        self._ending = True
        self._tell(word)

    def _tell(self, word: bytes) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):  # who is gone is noticed by `_listen`
                link.sendall(word)


def _gather(place: Place, until: float, patience: float) -> tuple[dict[int, socket.socket], int]:
    """Process 0's side: a connection to every other process, and the port they were told."""
    links: dict[int, socket.socket] = {}
    port = _free_port()
    with _listening(place.port) as server:
        server.listen(place.count)
        warned = False
        while missing := sorted(set(range(1, place.count)) - set(links)):
            server.settimeout(max(min(until - time.monotonic(), 5.0), 0.01))
            try:
                link, _ = server.accept()
            except TimeoutError:
                names = ", ".join(map(str, missing))
                if time.monotonic() >= until:
                    raise UserError(
                        f"processes {names} of {place.count} did not turn up at port {place.port} "
                        f"within {patience:g} s"
                    ) from None
                if not warned:
                    _say(f"waiting for processes {names} of {place.count} at port {place.port}")
                warned = True
                continue
            link.settimeout(5.0)
            try:
                count, index = _HELLO.unpack(_exactly(link, _HELLO.size))
            except OSError:  # somebody else's connection
                link.close()
                continue
            if count != place.count or index not in missing:
                raise UserError(
                    f"--process_id={index} of --num_processes={count} turned up, expected one of "
                    f"{', '.join(map(str, missing))} of {place.count}"
                )
            links[index] = link
    for link in links.values():
        link.sendall(_PORT.pack(port))
    return links, port


def _reach(place: Place, until: float, patience: float) -> tuple[dict[int, socket.socket], int]:
    """Every other process's side: a connection to process 0, and the port it told."""
    while True:
        try:
            link = socket.create_connection((place.host, place.port), timeout=5.0)
            link.sendall(_HELLO.pack(place.count, place.index))
            link.settimeout(max(until - time.monotonic(), 0.01) + 5.0)
            (port,) = _PORT.unpack(_exactly(link, _PORT.size))
            return {0: link}, port
        except OSError as error:
            if time.monotonic() >= until:
                raise UserError(
                    f"--coordinator={place.host}:{place.port}: process 0 cannot be reached within "
                    f"{patience:g} s ({error.strerror or error})"
                ) from None
            time.sleep(0.2)


def _listening(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
    except OSError as error:
        server.close()
        raise UserError(
            f"--coordinator: port {port} of this host cannot be used ({error.strerror}), expected "
            "a free one"
        ) from None
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _exactly(link: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = link.recv(size - len(found))
        if not part:
            raise ConnectionError("closed")
        found += part
    return found


def _say(sentence: str) -> None:
    """To stderr at once, from any thread."""
    sys.stdout.flush()
    os.write(2, f"{sentence}\n".encode())
