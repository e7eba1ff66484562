"""Unexpected exceptions: a sentence for the user, and a file with the traceback."""

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from pathlib import Path

import jax

from fedvlr_jax import plugins
from fedvlr_jax.files import LOG
from fedvlr_jax.foreign import printable, short
from fedvlr_jax.version import __version__

_LONGEST = 300  # characters of the exception's own words


def sentence(error: BaseException, out: str | None) -> str:
    """A sentence for people; the traceback is added to a file that the sentence names.

    Args:
        error: what was raised.
        out: what the program writes to; the file is in this folder where there is such a folder,
            else among the system's temporary files.
    """
    text, plugin = _traceback(error), plugins.place_of(error)
    whose = "this is a bug of fedvlr_jax; please report it with"
    if plugin is not None:
        whose = f"raised by a plugin ({printable(plugin)}); see"
    begin = f"error: {_words(error)}: {whose}"
    try:
        log = _added(text, out)
    except OSError as reason:
        return (
            f"{begin} this traceback, which cannot be kept in a file ({reason.strerror}):\n"
            f"{printable(text)}"
        )
    return f"{begin} the file {printable(str(log))}, which has the traceback"


def _words(error: BaseException) -> str:
    """Kind and message in one line."""
    kind = type(error).__name__
    try:
        words = " ".join(printable(str(error)[: 10 * _LONGEST]).split())
    except Exception:
        return kind  # a message that raises is no message
    return f"{kind} ({short(words, _LONGEST)})" if words else kind


def _traceback(error: BaseException) -> str:
    """When, what was called, with which versions, and the traceback."""
    try:
        raised = "".join(traceback.format_exception(error))
    except Exception as another:  # of the exception's own making
        frames = "".join(traceback.format_tb(error.__traceback__))
        raised = f"{frames}{type(error).__name__} (its message: {type(another).__name__})\n"
    return (
        f"{time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}\n{shlex.join(sys.argv)}\n"
        f"fedvlr_jax {__version__}, jax {jax.__version__}, Python {platform.python_version()}, "
        f"{platform.platform()}\n{raised}\n"
    )


def _added(text: str, out: str | None) -> Path:
    """The file that the text was added to."""
    content = text.encode("utf-8", "backslashreplace")
    if out and Path(out).is_dir():
        path = Path(out) / LOG
        # Nothing that a folder from elsewhere may have there is followed or waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(OSError), os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            file.write(content)
            return path
    descriptor, name = tempfile.mkstemp(prefix="fedvlr_jax-", suffix=".log")
    with os.fdopen(descriptor, "ab") as file:
        file.write(content)
    return Path(name)
