"""Strangers at process 0's address: the job goes on, and all who belong to it are in."""

import asyncio
import contextlib
import gc
import json
import os
import socket
import threading
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import addresses, greeting
from fedvlr_jax.processes.greeting import PURPOSES
from fedvlr_jax.processes.place import Place
from fedvlr_jax.version import __version__
from tests.processes.conftest import SECRET

PATIENCE = 20.0


class Gathering:
    """Process 0, waiting in a thread."""

    def __init__(self, count=2, host="127.0.0.1", patience=PATIENCE):
        self.servers = addresses.listening(host, 0)
        self.port = self.servers[0].getsockname()[1]
        self.count = count
        self.place = Place(host, self.port, count, 0)
        self.notes = []
        self.links = self.error = None
        self._thread = threading.Thread(target=self._gather, args=(patience,))
        self._thread.start()

    def _gather(self, patience):
        try:
            self.links = greeting.gather(
                self.place, SECRET.encode(), self.servers, patience, self.notes.append
            )
        except UserError as error:
            self.error = str(error)

    def stranger(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def reach(self, index, secret=SECRET, patience=PATIENCE, count=None):
        """The links, or the sentence."""
        place = Place("127.0.0.1", self.port, count or self.count, index)
        try:
            return greeting.reach(place, secret.encode(), patience)
        except UserError as error:
            return str(error)

    def reach_all(self):
        """Each right process in a thread."""
        found = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: self.reach(i)}))
            for i in range(1, self.count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.end()
        return found

    def end(self):
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()
        assert all(server.fileno() == -1 for server in self.servers), "the door is shut"


def assert_connected(gathering, found):
    """Every right process has a connection of each purpose, and it is its own."""
    assert gathering.error is None
    assert set(gathering.links) == {(i, p) for i in range(1, gathering.count) for p in PURPOSES}
    for (index, purpose), link in gathering.links.items():
        link.sendall(f"{index} {purpose}".encode())
        assert found[index][0, purpose].recv(64) == f"{index} {purpose}".encode()
        assert link.gettimeout() is None
    close(gathering, found)


def close(gathering, found):
    addresses.close(list((gathering.links or {}).values()))
    for links in found.values():
        if isinstance(links, dict):
            addresses.close(list(links.values()))


def signed(number, card, secret=SECRET):
    """What a process says of itself after `_HELLO` and a number of zeros."""
    text = json.dumps(card)
    return greeting._signed(secret.encode(), bytes(32) + number, greeting._WHO, text)


def number_of(link):
    link.sendall(greeting._HELLO + bytes(32))
    return link.recv(32, socket.MSG_WAITALL)


CARD = {"index": 1, "count": 2, "version": __version__, "purpose": "watch"}


def says(content):
    def come(gathering):
        link = gathering.stranger()
        link.sendall(content)
        return [link]

    return come


def says_slowly(gathering):
    link = gathering.stranger()

    def drip():
        try:
            for byte in greeting._HELLO * 100:
                link.send(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    return [link]


def closes_at_once(gathering):
    gathering.stranger().close()
    return []


def resets(gathering):
    link = gathering.stranger()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    link.close()
    return []


def many_that_are_silent(gathering):
    return [gathering.stranger() for _ in range(2 * greeting._PENDING + 5)]


def has_another_secret(gathering):
    link = gathering.stranger()
    link.sendall(signed(number_of(link), CARD, "quite another secret"))
    assert link.recv(2, socket.MSG_WAITALL) == b"\xff\xff"
    assert link.recv(1) == b""
    return [link]


def replays(gathering):
    """Says again what a right process has said to another number."""
    link = gathering.stranger()
    number_of(link)
    link.sendall(signed(bytes(32), CARD))
    assert link.recv(2, socket.MSG_WAITALL) == b"\xff\xff"
    return [link]


def is_silent_after_half_a_greeting(gathering):
    link = gathering.stranger()
    number_of(link)
    link.sendall(b"\0")
    return [link]


def mirrors(gathering):
    """Sends process 0's own bytes back."""
    link = gathering.stranger()
    link.sendall(number_of(link) * 40)
    return [link]


def promises_much(gathering):
    link = gathering.stranger()
    number_of(link)
    link.sendall(b"\xff\xfe" + b"x" * 60_000)
    return [link]


def goes_after_a_right_greeting(gathering):
    """A right process that dies before all are there; another takes its place."""
    link = gathering.stranger()
    link.sendall(signed(number_of(link), CARD | {"count": gathering.count}))
    assert link.recv(2, socket.MSG_WAITALL) == b"\0\0"
    link.close()
    time.sleep(0.1)
    return []


def has_signed_nonsense(gathering):
    """It knows the secret, but is no process of this program."""
    links = []
    for card in ([], {}, {"index": 1}, CARD | {"more": 1}, CARD | {"index": []}, "x" * 900):
        link = gathering.stranger()
        link.sendall(signed(number_of(link), card))
        links.append(link)
    return links


STRANGERS = {
    "http": says(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls": says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "grpc": says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "an older greeting": says(b"\0\0\0\2\0\0\0\1"),
    "random": says(os.urandom(100_000)),
    "zeros": says(bytes(8)),
    "hello alone": says(greeting._HELLO),
    "half a hello": says(greeting._HELLO[:9]),
    "nothing": says(b""),
    "a byte at a time": says_slowly,
    "closes": closes_at_once,
    "resets": resets,
    "many": many_that_are_silent,
    "another secret": has_another_secret,
    "a replay": replays,
    "half a greeting": is_silent_after_half_a_greeting,
    "a mirror": mirrors,
    "a long text": promises_much,
    "a right one that goes": goes_after_a_right_greeting,
    "signed nonsense": has_signed_nonsense,
}


@pytest.mark.parametrize("come", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_neither_ends_nor_delays_the_job(come):
    gathering = Gathering(count=3)
    strangers = come(gathering)
    began = time.monotonic()
    found = gathering.reach_all()
    assert time.monotonic() - began < greeting._SECONDS - 1, "nobody waits for a stranger's end"
    assert_connected(gathering, found)
    addresses.close(strangers)


def test_all_strangers_at_once_and_while_right_ones_come():
    gathering = Gathering(count=4)
    strangers, stop = [], threading.Event()

    def keep_coming():
        while not stop.is_set():
            try:
                for content in (b"GET / HTTP/1.1\r\n\r\n", b"", greeting._HELLO + bytes(32)):
                    strangers.extend(says(content)(gathering))
            except OSError:
                return
            time.sleep(0.01)

    thread = threading.Thread(target=keep_coming)
    thread.start()
    try:
        for name, come in STRANGERS.items():
            if name != "a right one that goes":  # would be a fourth process beside the others
                strangers.extend(come(gathering))
        found = gathering.reach_all()
    finally:
        stop.set()
        thread.join()
    assert_connected(gathering, found)
    addresses.close(strangers)


@settings(max_examples=8)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_whatever_a_stranger_says_the_right_process_gets_in(contents, with_hello, closes):
    gathering = Gathering()
    strangers = [
        link
        for content in contents
        for link in says((greeting._HELLO if with_hello else b"") + content)(gathering)
    ]
    if closes:
        addresses.close(strangers)
    assert_connected(gathering, gathering.reach_all())
    addresses.close(strangers)


@pytest.mark.parametrize("turns", range(6))
def test_who_comes_while_the_door_shuts_is_not_left_open(turns):
    """The door shuts any number of turns of the event loop after a stranger has come."""
    servers = addresses.listening("127.0.0.1", 0)
    address = servers[0].getsockname()

    async def shut_after():
        place = Place("127.0.0.1", address[1], 2, 0)
        door = greeting._Door(place, SECRET.encode(), servers, note=[].append)
        waiting = asyncio.create_task(door.links(PATIENCE))
        for _ in range(3):  # it waits now
            await asyncio.sleep(0)
        stranger = socket.create_connection(address, timeout=PATIENCE)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return stranger

    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        stranger = asyncio.run(shut_after())
        gc.collect()
    with stranger, contextlib.suppress(ConnectionResetError):
        assert stranger.recv(1) == b"", "process 0 has closed its end"
    assert not left_open


def test_a_silent_stranger_is_forgotten_after_a_while(monkeypatch):
    monkeypatch.setattr(greeting, "_SECONDS", 0.2)
    gathering = Gathering()
    for come in (says(b""), says(greeting._HELLO), is_silent_after_half_a_greeting, says_slowly):
        (link,) = come(gathering)
        link.settimeout(2.0)
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(1) == b""
        link.close()
    assert_connected(gathering, gathering.reach_all())


def test_who_has_another_secret_is_told_and_noted_once():
    gathering = Gathering()
    for _ in range(2):
        sentence = gathering.reach(1, "quite another secret")
        assert sentence == (
            f"--coordinator=127.0.0.1:{gathering.port}: process 0 has another secret than process "
            "1, expected FEDVLR_SECRET to be the same in all processes"
        )
    assert_connected(gathering, gathering.reach_all())
    (note,) = gathering.notes
    assert note.startswith("a process at 127.0.0.1 has another secret and was not let in")


@pytest.mark.parametrize(
    ("index", "more", "version", "sentence"),
    [
        (1, {"count": 4}, None, "process 1 was started with --num_processes=4 and process 0 with"),
        (2, {}, None, "two processes were started with --process_id=2, expected each of 0 to 2"),
        (
            1,
            {},
            "9.9",
            f"process 1 runs version 9.9 of fedvlr_jax and process 0 version {__version__}",
        ),
    ],
)
def test_processes_that_disagree_all_end_with_the_sentence(
    monkeypatch, index, more, version, sentence
):
    gathering = Gathering(count=3)
    found = {}
    waiting = threading.Thread(target=lambda: found.update(first=gathering.reach(2)))
    waiting.start()
    time.sleep(0.2)
    if version:
        right = greeting._card
        monkeypatch.setattr(
            greeting,
            "_card",
            lambda *a: greeting._Card(**(right(*a).__dict__ | {"version": version})),
        )
    found["second"] = gathering.reach(index, **more)
    waiting.join()
    gathering.end()
    assert gathering.error.startswith(sentence)
    assert found == {"first": gathering.error, "second": gathering.error}


def test_who_is_missing_is_noted_and_named(monkeypatch):
    monkeypatch.setattr(greeting, "_SECONDS_TO_NOTE", 0.05)
    gathering = Gathering(count=3, patience=0.5)
    found = gathering.reach(1)
    gathering.end()
    where = f"127.0.0.1:{gathering.port}"
    assert gathering.notes[0].endswith(f" of 3 at {where}, which only this host can reach")
    assert gathering.error == f"process 2 of 3 did not connect to {where} within 0.5 s"
    assert found == gathering.error


def test_an_end_of_strangers_does_not_move_the_deadline():
    began = time.monotonic()
    gathering = Gathering(patience=2.0)
    strangers = [link for _ in range(5) for link in says(greeting._HELLO)(gathering)]
    gathering.end()
    assert time.monotonic() - began < 2.0 + greeting._SECONDS - 1
    assert gathering.error.startswith("process 1 of 2 did not connect")
    addresses.close(strangers)


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(200)])
def test_somebody_else_in_process_0s_place_gets_no_process(monkeypatch, content):
    monkeypatch.setattr(greeting, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        links = []

        def answer():
            while True:
                try:
                    links.append(server.accept()[0])
                    links[-1].sendall(content)
                except OSError:
                    return

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        place = Place("127.0.0.1", server.getsockname()[1], 2, 1)
        with pytest.raises(UserError) as refused:
            greeting.reach(place, SECRET.encode(), 0.3)
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    addresses.close(links)
    assert "process 0 cannot be reached within 0.3 s" in str(refused.value) or (
        "process 0 has another secret" in str(refused.value)
    )


def test_a_name_whose_first_address_does_not_answer_leads_to_process_0(monkeypatch):
    monkeypatch.setattr(greeting, "_SECONDS", 0.5)
    connect = socket.create_connection

    def slowly(*arguments, **more):
        time.sleep(0.6)  # as long as an address that does not answer
        return connect(*arguments, **more)

    gathering = Gathering()
    monkeypatch.setattr(socket, "create_connection", slowly)
    assert_connected(gathering, gathering.reach_all())


def test_after_all_are_in_nobody_is_let_in():
    gathering = Gathering()
    found = gathering.reach_all()
    with pytest.raises(ConnectionRefusedError):
        gathering.stranger()
    assert "all processes have connected already" in gathering.reach(1, patience=0.1)
    assert_connected(gathering, found)
