"""Signals: the first one asks where a round is in progress, the second one stops, as any else."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from experiments import interrupts
from experiments.reporting import Progress, Quiet
from fedvlr_jax.errors import Stopped
from tests.experiments.test_bugs import ended

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_where_no_round_is_in_progress_a_signal_stops_at_once(number, code, capsys):
    def act():
        send(number)
        raise AssertionError("went on")

    found, told = ended(act, capsys)
    assert found == code
    assert told == "interrupted; the same command goes on from what is on disk\n"


@pytest.mark.parametrize("reporter", [Quiet(), Progress()], ids=["quiet", "progress"])
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_round_is_finished_first(number, code, reporter, capfd):
    seen = []

    def act():
        reporter.begin(0, 3, "round")
        seen.append(reporter.wants_stop())
        send(number)
        seen.append(reporter.wants_stop())
        reporter.end()
        raise Stopped

    found, told = ended(act, capfd)
    assert found == code
    assert seen == [False, True]
    again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
    assert f"stopping after this round; {again} stops at once" in told


@pytest.mark.parametrize(("first", "second", "code"), [
    (signal.SIGTERM, signal.SIGTERM, 143),
    (signal.SIGINT, signal.SIGINT, 130),
    (signal.SIGHUP, signal.SIGTERM, 143),
    (signal.SIGTERM, signal.SIGINT, 130),
])  # fmt: skip
def test_the_second_signal_stops_at_once(first, second, code, capsys):
    def act():
        Quiet().begin(0, 3, "round")
        send(first)
        send(second)
        raise AssertionError("went on")

    assert ended(act, capsys)[0] == code


@pytest.mark.parametrize("unit", ["image", "text"])
def test_what_is_no_round_is_not_waited_for(unit, capsys):
    def act():
        Quiet().begin(0, 3, unit)
        send(signal.SIGTERM)
        raise AssertionError("went on")

    assert ended(act, capsys)[0] == 143


def test_under_nohup_a_closed_terminal_changes_nothing(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ended(lambda: send(signal.SIGHUP), capsys) == (0, "")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_set_back(capsys):
    numbers = [number for number, _ in SIGNALS]
    before = [signal.getsignal(number) for number in numbers]
    ended(lambda: None, capsys)
    assert [signal.getsignal(number) for number in numbers] == before


def test_in_another_thread_there_is_nothing_to_hear():
    failed = []

    def work():
        try:
            with interrupts.heard():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


def test_a_terminal_that_is_gone_takes_nothing_along(monkeypatch):
    reader, writer = os.openpty()
    monkeypatch.setattr(interrupts, "_terminals", [writer])
    os.close(reader)
    interrupts._leave_closed_terminals()
    assert os.write(writer, b"the rest") == 8, "goes nowhere"
    os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_signal_that_python_drops_comes_once_more(number, deferred, capfd):
    class Gone:
        def __del__(self):
            os.kill(os.getpid(), number)
            sum(range(10))

    hook = sys.unraisablehook
    with interrupts.heard():
        interrupts.defer(deferred)
        stops = contextlib.nullcontext() if deferred else pytest.raises(KeyboardInterrupt)
        with stops:
            Gone()
            time.sleep(0.2 if deferred else 10)
        assert interrupts.asked()
        assert interrupts.code() == 128 + number
    assert sys.unraisablehook is hook
    assert "Traceback" not in capfd.readouterr().err
