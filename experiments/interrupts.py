"""Ctrl-C: once to stop after the round, twice to stop at once."""

import os
import signal
from types import FrameType

_asked = False


def defer() -> None:
    """From now on the first Ctrl-C only asks, and the second interrupts as always."""
    signal.signal(signal.SIGINT, _ask)


def asked() -> bool:
    """Whether Ctrl-C has asked to stop."""
    return _asked


def _ask(_number: int, _frame: FrameType | None) -> None:
    global _asked
    _asked = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not print: its buffer may be in use by what was interrupted.
    os.write(2, b"\nstopping after this round; Ctrl-C again stops at once\n")
