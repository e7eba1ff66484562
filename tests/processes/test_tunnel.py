"""The way between JAX and its service, with a plain server in the service's place."""

import os
import socket
import stat
import threading

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes.tunnel import Tunnel


def path_of(tunnel):
    return tunnel.address.removeprefix("unix:")


@pytest.fixture
def ends():
    """Process 0's tunnel and another process's, and the service that process 0 offers."""
    ours, theirs = socket.socketpair()
    first, other = Tunnel([ours], is_first=True), Tunnel([theirs], is_first=False)
    service = socket.socket(socket.AF_UNIX)
    service.settimeout(10)
    yield first, other, service
    service.close()
    for tunnel in (first, other):
        tunnel.close()
        assert not any(thread.is_alive() for thread in tunnel._threads)
        assert not os.path.exists(os.path.dirname(path_of(tunnel)))
    assert ours.fileno() == theirs.fileno() == -1


def connected(ends):
    """What JAX has of each end."""
    first, other, service = ends
    service.bind(path_of(first))
    service.listen()
    other.wait_until_ready(10.0)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(path_of(other))
    return service.accept()[0], client


def test_what_one_says_the_other_hears(ends):
    at_service, at_client = connected(ends)
    with at_service, at_client:
        content = os.urandom(1 << 20)
        for a, b in ((at_service, at_client), (at_client, at_service)):
            sending = threading.Thread(target=a.sendall, args=(content,))
            sending.start()
            found = b""
            while len(found) < len(content):
                found += b.recv(1 << 16)
            sending.join()
            assert found == content


def test_nobody_else_finds_the_service(ends):
    first, other, _ = ends
    at_service, at_client = connected(ends)
    with at_service, at_client:
        for tunnel in (first, other):
            folder = os.path.dirname(path_of(tunnel))
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            tunnel.hide()
            with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(path_of(tunnel))


def test_jax_does_not_hear_of_a_service_that_is_lost_before_the_end(ends):
    at_service, at_client = connected(ends)
    with at_client:
        at_service.close()
        at_client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            at_client.recv(1)


def test_at_the_end_last_answers_arrive_and_jax_hears_of_it(ends):
    first, other, _ = ends
    at_service, at_client = connected(ends)
    with at_client:
        first.expect_end()
        other.expect_end()
        at_service.sendall(b"done")
        at_service.close()
        first.close()
        assert at_client.recv(64) == b"done"
        assert at_client.recv(64) == b""


def test_a_process_0_that_stops_before_its_service_is_there_is_told():
    ours, theirs = socket.socketpair()
    other = Tunnel([theirs], is_first=False)
    ours.close()
    with pytest.raises(UserError, match="process 0 stopped before JAX had started"):
        other.wait_until_ready(10.0)
    other.close()


def test_a_long_folder_for_temporary_files_is_avoided(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 100)))
    tunnel = Tunnel([], is_first=True)
    assert len(path_of(tunnel)) < 100
    tunnel.close()
