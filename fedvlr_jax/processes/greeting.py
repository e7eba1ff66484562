"""How processes find one another: process 0 waits at its address, the others come to it.

A connection is a stranger's until both ends have shown that they know the secret: each answers a
number that the other has just drawn with an HMAC of it, so an answer that was overheard is worth
nothing the next time. A stranger has a few seconds; whatever it sends ends its own connection only.

    the other -> process 0   _HELLO, a number
    process 0 -> the other   another number
    the other -> process 0   who it is, signed
    process 0 -> the other   what is wrong with that, or nothing, signed
    process 0 -> the other   what is wrong with another process, or nothing: all are there; signed
"""

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import addresses
from fedvlr_jax.processes.place import Place
from fedvlr_jax.processes.secret import VARIABLE
from fedvlr_jax.version import __version__

WATCH, JAX = "watch", "jax"
PURPOSES = (WATCH, JAX)

Links = dict[tuple[int, str], socket.socket]
"""A connection for every other process and every purpose."""

_HELLO = b"fedvlr_jax greeting 1\n"
_NUMBER, _SIGNATURE = 32, 32  # bytes
_LENGTH = struct.Struct("!H")
_LONGEST = 1024  # bytes of a text
_STRANGER = 0xFFFF  # instead of a length: you have another secret
_WHO, _ALONE, _ALL = b"who", b"alone", b"all"  # what a signature is for

_SECONDS = 5.0  # that a greeting may take
_SECONDS_TO_NOTE = 5.0
_SECONDS_BETWEEN = 0.2
_PENDING = 64  # connections that have not shown yet that they know the secret


class _StrangerError(Exception):
    """The other end has another secret."""


@dataclass(frozen=True)
class _Card:
    """Who comes."""

    index: int
    count: int
    version: str
    purpose: str


class _Line:
    """One end of a connection whose numbers are known to both; signs and checks."""

    def __init__(self, link: socket.socket, secret: bytes, numbers: bytes) -> None:
        self.link = link
        self._secret = secret
        self._numbers = numbers

    async def send(self, use: bytes, text: str) -> None:
        await _send(self.link, _signed(self._secret, self._numbers, use, text))

    async def receive(self, use: bytes) -> str:
        """What the other end has sent.

        Raises:
            _StrangerError: it has another secret.
            ValueError: it does not keep to the protocol.
            OSError: the connection has ended.
        """
        (length,) = _LENGTH.unpack(await _exactly(self.link, _LENGTH.size))
        if length == _STRANGER:
            raise _StrangerError
        if length > _LONGEST:
            raise ValueError("a text that is too long")
        content = await _exactly(self.link, length)
        signature = await _exactly(self.link, _SIGNATURE)
        expected = _signature(self._secret, self._numbers, use, content)
        if not hmac.compare_digest(signature, expected):
            raise _StrangerError
        return content.decode()

    async def refuse(self) -> None:
        """Tell the other end that it has another secret."""
        await _send(self.link, _LENGTH.pack(_STRANGER))


def gather(
    place: Place,
    secret: bytes,
    servers: list[socket.socket],
    patience: float,
    note: Callable[[str], None],
) -> Links:
    """Process 0's side: wait at `servers`, which are closed then, for all other processes.

    Raises:
        UserError: some do not turn up in time, or those that do disagree on who is who.
    """
    try:
        return asyncio.run(_Door(place, secret, servers, note).links(patience))
    finally:
        addresses.close(servers)


def reach(place: Place, secret: bytes, patience: float) -> Links:
    """Every other process's side: connections to process 0, when all have turned up.

    Raises:
        UserError: process 0 cannot be reached in time, or something is wrong with a process.
    """
    return asyncio.run(_reach(place, secret, patience))


class _Door:
    """Process 0's side of all greetings at once."""

    def __init__(
        self,
        place: Place,
        secret: bytes,
        servers: list[socket.socket],
        note: Callable[[str], None],
    ) -> None:
        self._place = place
        self._where = addresses.named(place.host, place.port)
        self._secret = secret
        self._servers = servers
        self._note = note
        self._inside: dict[tuple[int, str], _Line] = {}
        self._pending: dict[asyncio.Task, None] = {}  # greetings, the oldest first
        self._tasks: set[asyncio.Task] = set()
        self._changed = asyncio.Event()
        self._wrong = ""
        self._has_noted_a_stranger = False

    async def links(self, patience: float) -> Links:
        for server in self._servers:
            server.setblocking(False)
            self._open(server)
        self._start(self._note_who_is_missing())
        try:
            async with asyncio.timeout(patience):
                while self._missing() and not self._wrong:
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            self._wrong = (
                f"{self._missing_names()} did not connect to {self._where} within {patience:g} s"
            )
        finally:
            await self._stop()
        for line in self._inside.values():
            with contextlib.suppress(OSError, TimeoutError):  # the watch notices who has gone
                async with asyncio.timeout(_SECONDS):
                    await line.send(_ALL, self._wrong)
        if self._wrong:
            addresses.close([line.link for line in self._inside.values()])
            raise UserError(self._wrong)
        return {key: _waiting(line.link) for key, line in self._inside.items()}

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self) -> None:
        """End all tasks, and with them the greetings that are not done; then shut the door."""
        for server in self._servers:
            asyncio.get_running_loop().remove_reader(server)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        addresses.close(self._servers)

    def _open(self, server: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(server, self._accept, server)

    def _accept(self, server: socket.socket) -> None:
        """Begin to greet who has come to `server`.

        Not a coroutine: cancelled between the connection and its greeting, it would leave the
        connection to nobody.
        """
        try:
            link, address = server.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # gone already, or too many files are open for the moment
            asyncio.get_running_loop().remove_reader(server)
            self._start(self._open_again(server))
            return
        link.setblocking(False)
        if len(self._pending) >= _PENDING:
            # Who belongs here is done within milliseconds, so the oldest does not.
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.cancel()
        task = self._start(self._greet(link, str(address[0])))
        self._pending[task] = None
        task.add_done_callback(lambda task: self._end_greeting(task, link))

    async def _open_again(self, server: socket.socket) -> None:
        await asyncio.sleep(_SECONDS_BETWEEN)
        self._open(server)

    def _end_greeting(self, task: asyncio.Task, link: socket.socket) -> None:
        self._pending.pop(task, None)
        if task.cancelled() or not task.result():
            link.close()

    async def _greet(self, link: socket.socket, address: str) -> bool:
        """Whether the connection is one that belongs here, and is kept."""
        try:
            async with asyncio.timeout(_SECONDS):
                if await _exactly(link, len(_HELLO)) != _HELLO:
                    return False
                theirs, own = await _exactly(link, _NUMBER), secrets.token_bytes(_NUMBER)
                await _send(link, own)
                line = _Line(link, self._secret, theirs + own)
                try:
                    card = _Card(**json.loads(await line.receive(_WHO)))
                except _StrangerError:
                    self._note_stranger(address)
                    await line.refuse()
                    return False
                wrong = self._what_is_wrong(card)
                await line.send(_ALONE, wrong)
        except (OSError, ValueError, TypeError, RecursionError, TimeoutError):
            return False
        self._changed.set()
        if wrong:
            self._wrong = wrong
            return False
        self._inside[card.index, card.purpose] = line
        self._start(self._notice_end(card, line))
        return True

    def _what_is_wrong(self, card: _Card) -> str:
        """What two processes that know the secret do not agree on; nothing where they do."""
        who = f"process {card.index}"
        if card.version != __version__:
            return (
                f"{who} runs version {card.version} of fedvlr_jax and process 0 version "
                f"{__version__}, expected the same in all processes"
            )
        if card.count != self._place.count:
            return (
                f"{who} was started with --num_processes={card.count} and process 0 with "
                f"--num_processes={self._place.count}, expected the same in all processes"
            )
        if (card.index, card.purpose) in self._inside:
            return (
                f"two processes were started with --process_id={card.index}, expected each of 0 "
                f"to {self._place.count - 1} once"
            )
        return ""

    async def _notice_end(self, card: _Card, line: _Line) -> None:
        """Let another take the place of a process that goes before all have turned up."""
        with contextlib.suppress(OSError):
            # It has nothing to say before it is told that all are there.
            await asyncio.get_running_loop().sock_recv(line.link, 1)
        del self._inside[card.index, card.purpose]
        line.link.close()

    def _missing(self) -> list[int]:
        others = range(1, self._place.count)
        return [i for i in others if any((i, purpose) not in self._inside for purpose in PURPOSES)]

    def _missing_names(self) -> str:
        missing = self._missing()
        return (
            f"process{'es' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of "
            f"{self._place.count}"
        )

    async def _note_who_is_missing(self) -> None:
        await asyncio.sleep(_SECONDS_TO_NOTE)
        where = ", which only this host can reach" if addresses.only_here(self._servers) else ""
        self._note(f"waiting for {self._missing_names()} at {self._where}{where}")

    def _note_stranger(self, address: str) -> None:
        if not self._has_noted_a_stranger:
            self._note(
                f"a process at {address} has another secret and was not let in; is {VARIABLE} the "
                "same in all?"
            )
        self._has_noted_a_stranger = True


async def _reach(place: Place, secret: bytes, patience: float) -> Links:
    what = f"--coordinator={addresses.named(place.host, place.port)}"
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            return await _links(place, secret, patience)
        except _StrangerError:
            raise UserError(
                f"{what}: process 0 has another secret than process {place.index}, expected "
                f"{VARIABLE} to be the same in all processes"
            ) from None
        except UserError:
            raise
        except ConnectionRefusedError:
            reason = (
                "nothing listens there; it has not started, or all processes have connected already"
            )
        except TimeoutError:
            reason = "no answer"
        except ValueError:
            reason = "what answers there is not process 0"
        except OSError as error:
            reason = error.strerror or str(error)
        if loop.time() >= until:
            raise UserError(f"{what}: process 0 cannot be reached within {patience:g} s ({reason})")
        await asyncio.sleep(_SECONDS_BETWEEN)


async def _links(place: Place, secret: bytes, patience: float) -> Links:
    """Connections to process 0, which tells on each that all processes have turned up.

    Raises:
        UserError: process 0 says that something is wrong with a process.
        _StrangerError, ValueError, OSError: see `_Line.receive`.
    """
    lines: dict[tuple[int, str], _Line] = {}
    try:
        for purpose in PURPOSES:
            lines[0, purpose] = await _introduce(place, secret, purpose)
        # Process 0 may have begun to wait much later than this one.
        async with asyncio.timeout(patience + _SECONDS):
            _check([await line.receive(_ALL) for line in lines.values()])
    except BaseException:
        addresses.close([line.link for line in lines.values()])
        raise
    return {key: _waiting(line.link) for key, line in lines.items()}


async def _introduce(place: Place, secret: bytes, purpose: str) -> _Line:
    """A connection to process 0 that both ends have agreed on.

    Raises:
        UserError: process 0 says that something is wrong with this process.
        _StrangerError, ValueError, OSError: see `_Line.receive`.
    """
    # Blocks, as nothing else goes on here. A name with several addresses takes as long for each.
    link = socket.create_connection((place.host, place.port), timeout=_SECONDS)
    try:
        link.setblocking(False)
        async with asyncio.timeout(_SECONDS):
            own = secrets.token_bytes(_NUMBER)
            await _send(link, _HELLO + own)
            line = _Line(link, secret, own + await _exactly(link, _NUMBER))
            await line.send(_WHO, json.dumps(asdict(_card(place, purpose))))
            _check([await line.receive(_ALONE)])
    except BaseException:
        link.close()
        raise
    return line


def _card(place: Place, purpose: str) -> _Card:
    return _Card(place.index, place.count, __version__, purpose)


def _check(answers: list[str]) -> None:
    """Raises: UserError: one of them says that something is wrong."""
    for wrong in answers:
        if wrong:
            raise UserError(wrong)


def _waiting(link: socket.socket) -> socket.socket:
    link.setblocking(True)
    return link


def _signed(secret: bytes, numbers: bytes, use: bytes, text: str) -> bytes:
    """A text as it is sent."""
    content = text.encode()[:_LONGEST]
    return _LENGTH.pack(len(content)) + content + _signature(secret, numbers, use, content)


def _signature(secret: bytes, numbers: bytes, use: bytes, content: bytes) -> bytes:
    # The numbers have a fixed length and no use holds a colon, so no two messages look the same.
    return hmac.digest(secret, numbers + use + b":" + content, "sha256")


async def _send(link: socket.socket, content: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(link, content)


async def _exactly(link: socket.socket, size: int) -> bytes:
    """The next bytes of a connection.

    Raises:
        OSError: it ends before.
    """
    received = b""
    while len(received) < size:
        more = await asyncio.get_running_loop().sock_recv(link, size - len(received))
        if not more:
            raise ConnectionError("the connection was closed")
        received += more
    return received
