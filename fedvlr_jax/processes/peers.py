"""A watch over the other processes: when one ends, all end soon, with a sentence.

A collective operation waits for every process, for ever if one has died. So process 0 holds a
connection to each other process; both ends say every second that they are there. A connection that
closes, or is silent for half a minute, ends the process that notices it, and so all of them.

JAX's own coordination service watches, too, but it can only abort a process, without a sentence.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable

from fedvlr_jax.processes import addresses, greeting
from fedvlr_jax.processes.place import Place
from fedvlr_jax.processes.secret import shared

_BEAT, _LEFT, _FAILED = b".", b"!", b"x"
_SECONDS_BETWEEN = 1.0
_EXIT_CODE = 2


class Peers:
    """The connections of one process; made when all processes have turned up.

    Args:
        place: which process this is.
        patience: seconds to wait for all to turn up.
        silence: seconds after which a process that says nothing counts as lost.

    Raises:
        UserError: not all turned up in time, they disagree on who is who, or see `shared`.

    Attributes:
        jax_links: connections to the same processes, for what JAX has to say.
        address: of this process, where the others can reach it.
    """

    def __init__(self, place: Place, patience: float, silence: float) -> None:
        self._place = place
        self._silence = silence
        self._ending = threading.Event()
        secret = shared()
        if place.index == 0:
            servers = addresses.listening(place.host, place.port)
            links = greeting.gather(place, secret, servers, patience, _say)
        else:
            links = greeting.reach(place, secret, patience)
        self.jax_links = _links(links, greeting.JAX)
        self._links = _links(links, greeting.WATCH)
        self.address = str(next(iter(self._links.values())).getsockname()[0])
        self._threads: list[threading.Thread] = []
        for other, link in self._links.items():
            link.settimeout(silence)
            self._start(lambda other=other, link=link: self._listen(other, link))
        self._start(self._beat)

    def leave(self) -> None:
        """Go after everybody is done."""
        self._end(_LEFT)
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        addresses.close(list(self._links.values()))

    def fail(self) -> None:
        """Tell the others before this process ends by an error of its own."""
        self._end(_FAILED)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

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
        if not self._ending.is_set():
            _say(
                f"error: process {other} {why}, so process {self._place.index} stops; start all "
                "processes again to go on from the last checkpoint"
            )
            self.fail()
            # Not sys.exit: the main thread may wait inside of JAX for ever.
            os._exit(_EXIT_CODE)

    def _beat(self) -> None:
        self._tell(_BEAT)
        while not self._ending.wait(_SECONDS_BETWEEN):
            self._tell(_BEAT)

    def _end(self, word: bytes) -> None:
        self._ending.set()
        self._tell(word)

    def _tell(self, word: bytes) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):  # who is gone is noticed by `_listen`
                link.sendall(word)


def _links(links: greeting.Links, purpose: str) -> dict[int, socket.socket]:
    return {other: link for (other, what), link in links.items() if what == purpose}


def _say(sentence: str) -> None:
    """To stderr at once, from any thread."""
    sys.stdout.flush()
    os.write(2, f"{sentence}\n".encode())
