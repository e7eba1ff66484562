"""Ctrl-C, SIGTERM and SIGHUP: once to stop after the round, twice to stop at once.

A cluster ends a job by SIGTERM, as `docker stop` does; a terminal that is closed sends SIGHUP.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_AGAIN = 0.05  # seconds until a signal comes once more that Python has dropped
_asked = 0  # number of the signal that has asked to stop, 0 while none has
_deferred = False
_terminals: list[int] = []  # those of stdout and stderr that were terminals at the start


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Inside, all three raise KeyboardInterrupt, or only ask while they are deferred.

    What is ignored stays so (SIGHUP under `nohup`). Python lets the main thread alone do this.
    """
    global _asked, _deferred
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked, _deferred = 0, False
    _terminals[:] = filter(os.isatty, (1, 2))
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last one is not everywhere
        number = getattr(signal, name, None)
        had = None if number is None else signal.getsignal(number)
        # A program that a script has put into the background ignores Ctrl-C, but not a person's.
        if had is not None and (had != signal.SIG_IGN or name == "SIGINT"):
            before[number] = signal.signal(number, _hear)
    hook, repeats = sys.unraisablehook, []

    def dropped(what: Any) -> None:
        # What is raised in a weak reference's callback or in __del__ is told, and ends nothing.
        if what.exc_type is not KeyboardInterrupt:
            return hook(what)
        main = threading.main_thread().ident
        again = threading.Timer(_AGAIN, signal.pthread_kill, (main, _asked or signal.SIGINT))
        again.daemon = True
        repeats.append(again)
        return again.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for again in repeats:
            again.cancel()  # nobody would hear it from here on
        for number, had in before.items():
            signal.signal(number, had)


def defer(yes: bool = True) -> None:
    """From now on the first signal only asks, as there is a round to finish; or it does no more."""
    global _deferred
    _deferred = yes


def asked() -> bool:
    """Whether a signal has asked to stop."""
    return _asked > 0


def code() -> int:
    """The exit code after an interruption: 130 of Ctrl-C, 143 of SIGTERM, 129 of SIGHUP."""
    return 128 + (_asked or signal.SIGINT)


def _hear(number: int, _frame: FrameType | None) -> None:
    global _asked
    only_ask = _deferred and not _asked
    _asked = number
    _leave_closed_terminals()
    if not only_ask:
        raise KeyboardInterrupt
    what = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
    sentence = f"\nstopping after this round; {what} stops at once\n"
    with contextlib.suppress(OSError):
        # Not print: its buffer may be in use by what was interrupted.
        os.write(2, sentence.encode())


def _leave_closed_terminals() -> None:
    """Print to nowhere from now on where a terminal is gone, so that the rest can be saved."""
    for terminal in _terminals:
        try:
            os.write(terminal, b"\r")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, terminal)
            os.close(nowhere)
