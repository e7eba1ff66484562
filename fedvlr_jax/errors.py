"""What a user's mistake raises, and what a user's wish to stop does."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fedvlr_jax.foreign import printable

_LONGEST = 4000  # characters of a sentence
_DASHES = re.compile(r"(?<![^\s(:;,])--(?=[a-z_]+)")
_SETTING = re.compile(r"--([a-z_]+)\b")
_of_program = False  # whether a program is running, so that settings are its flags


@contextmanager
def naming_flags(yes: bool = True) -> Iterator[None]:
    """Let sentences name settings as flags, `--rounds=0`, as the programs do, or as Python does."""
    global _of_program
    before, _of_program = _of_program, yes
    try:
        yield
    finally:
        _of_program = before


class UserError(ValueError):
    """Bad input, told in one sentence: what was found, where, and what was expected.

    The sentence is written with flags (`--rounds=0: expected ...`). The command-line programs print
    it on stderr and exit with code 2. Called from Python, where there are no flags, settings are
    named without dashes (`rounds=0: expected ...`). Everything else that is raised is a bug in this
    package; the programs keep its traceback in a file that they name.

    The sentence is one line. What a terminal would obey in it is escaped, and the middle of one
    that nobody would read to its end is left out.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_short(" ".join(printable(_short(sentence)).split())))

    def __str__(self) -> str:
        (sentence,) = self.args
        return sentence if _of_program else _DASHES.sub("", sentence)

    @property
    def setting(self) -> str | None:
        """The setting that the sentence begins with, if it begins with one."""
        match = _SETTING.match(self.args[0])
        return match and match[1]


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} ({len(text) - 2 * half:,} characters left out) {text[-half:]}"


class DivergedError(UserError):
    """Training whose loss or parameters stopped being finite; smaller learning rates may help."""


class PrunedError(Exception):
    """A run was ended before its last round; the text says why it is not worth going on with."""


class UnwritableError(UserError):
    """A file system that takes no more, or nothing at all: no fault of what was to be written."""


class Stopped(Exception):  # noqa: N818 -- not an error
    """Training was stopped, as its reporter wanted, and saved; the same call goes on from there."""
