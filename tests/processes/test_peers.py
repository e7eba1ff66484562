"""Rendezvous and watch, without JAX: small processes that only have `Peers`."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes.peers import Peers
from fedvlr_jax.processes.place import Place
from tests.experiments import programs

PROGRAM = """
import sys, time
from fedvlr_jax.processes.peers import Peers
from fedvlr_jax.processes.place import Place
port, count, index, silence = map(int, sys.argv[1:5])
peers = Peers(Place("127.0.0.1", port, count, index), 60.0, silence)
print("joined", peers.address, flush=True)
word = sys.stdin.readline().strip()
if word == "leave":
    peers.leave()
elif word == "fail":
    peers.fail()
    sys.exit(7)
else:
    time.sleep(1000)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def three():
    """Three processes that have found one another."""
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", programs.IN_PARTS + PROGRAM, port, "3", str(index), "3"],
            env=programs.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(3)
    ]
    said = [process.stdout.readline().split() for process in started]
    assert {word for word, _ in said} == {"joined"}
    assert {address for _, address in said} == {"127.0.0.1"}
    yield started
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """(exit code, stderr)"""
    _, complaint = process.communicate(timeout=30)
    return process.returncode, complaint


@pytest.mark.parametrize("victim", [0, 2])
def test_a_process_that_is_killed_ends_all(three, victim):
    three[victim].kill()
    for index, process in enumerate(three):
        if index != victim:
            code, complaint = ended(process)
            assert code == 2
            assert complaint.count("error: process") == 1
            assert f"so process {index} stops; start all processes again" in complaint


def test_a_process_that_hangs_ends_all(three):
    three[1].send_signal(signal.SIGSTOP)
    code, complaint = ended(three[0])
    assert code == 2
    assert "process 1 has not been heard of for 3 s" in complaint
    assert ended(three[2])[0] == 2


def test_an_error_of_one_ends_all(three):
    print("fail", file=three[2].stdin, flush=True)
    assert ended(three[2]) == (7, "")
    code, complaint = ended(three[0])
    assert code == 2
    assert "process 2 has stopped with an error" in complaint


def test_who_leaves_is_not_missed(three):
    for process in three[1:]:
        print("leave", file=process.stdin, flush=True)
        assert ended(process) == (0, "")
    time.sleep(0.2)
    assert three[0].poll() is None
    print("leave", file=three[0].stdin, flush=True)
    assert ended(three[0]) == (0, "")


def test_who_does_not_turn_up_is_named():
    with pytest.raises(UserError, match=r"processes 1, 2 of 3 did not connect to 127\.0\.0\.1:"):
        Peers(Place("127.0.0.1", free_port(), 3, 0), 0.1, 3.0)
    with pytest.raises(UserError, match="process 0 cannot be reached within"):
        Peers(Place("127.0.0.1", free_port(), 3, 1), 0.1, 3.0)


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of this host cannot be used"):
            Peers(Place("127.0.0.1", port, 2, 0), 0.1, 3.0)
