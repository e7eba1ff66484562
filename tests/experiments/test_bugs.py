"""Whatever a program raises ends in one sentence, a file with the traceback, and an exit code."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import jax
import pytest
from absl import flags

from experiments import bugs, cli
from fedvlr_jax.files import LOG
from fedvlr_jax.processes import start


class Program:
    """A main that does one thing."""

    USAGE = "usage: nothing"

    def __init__(self, act):
        self._act = act

    def main(self, _values):
        self._act()


def ended(act, capsys, *arguments):
    """(exit code, stderr) of a main that does `act`."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "A folder.", flag_values=values)
    old, sys.argv = sys.argv, ["program", *arguments]
    code = 0
    try:
        cli.run(Program(act).main, values, Program.USAGE)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = old
    return code, capsys.readouterr().err


class SpeechlessError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class AbsurdError(Exception):
    def __str__(self):
        return 7


class Leaving(SystemExit):
    pass


class BareError(BaseException):
    pass


def deep():
    return deep()


def while_printing():
    class Closed:
        def write(self, _):
            raise ValueError("I/O operation on closed file")

        def flush(self):
            pass

    print("result", file=Closed())


def chained():
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("second") from error


def raising(error):
    def act():
        raise error

    return act


STRANGE = {
    "key": (raising(KeyError("x")), "KeyError ('x')"),
    "recursion": (deep, "RecursionError"),
    "assertion": (raising(AssertionError()), "AssertionError"),
    "speechless": (raising(SpeechlessError()), "SpeechlessError"),
    "absurd": (raising(AbsurdError()), "AbsurdError"),
    "leaving": (raising(Leaving(0)), "Leaving (0)"),
    "exit": (raising(SystemExit("bye")), "SystemExit (bye)"),
    "generator": (raising(GeneratorExit()), "GeneratorExit"),
    "base": (raising(BareError("base")), "BareError (base)"),
    "group": (raising(ExceptionGroup("several", [ValueError(1), KeyError(2)])), "ExceptionGroup"),
    # Older releases of JAX call it XlaRuntimeError.
    "xla": (
        raising(jax.errors.JaxRuntimeError("INTERNAL: no")),
        f"{jax.errors.JaxRuntimeError.__name__} (INTERNAL: no)",
    ),
    "encode": (lambda: "\udc80".encode(), "UnicodeEncodeError"),
    "lines": (raising(ValueError("one\ntwo\n\nthree")), "ValueError (one two three)"),
    "escapes": (raising(ValueError("\x1b]0;owned\x07\x1b[2J")), "ValueError ("),
    "surrogates": (raising(ValueError("\udcff")), "ValueError ("),
    "system": (raising(OSError("of no system")), "OSError (of no system)"),
    "printing": (while_printing, "ValueError (I/O operation on closed file)"),
    "chained": (chained, "RuntimeError (second)"),
    "endless": (raising(ValueError("x" * 100_000)), "ValueError (xxx"),
    "json": (lambda: json.dumps(float("nan"), allow_nan=False), "ValueError"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_exception_is_a_sentence_and_a_file(name, capsys, tmp_path):
    act, words = STRANGE[name]
    code, told = ended(act, capsys, f"--out={tmp_path}")
    assert code == 1
    assert told.startswith(f"error: {words}")
    assert told.count("\n") == 1
    assert len(told) < 1000
    assert told.rstrip("\n").isprintable()
    log = (tmp_path / LOG).read_text(encoding="utf-8")
    assert str(tmp_path / LOG) in told
    assert "Traceback" in log
    assert f"--out={tmp_path}" in log


def test_without_a_folder_the_file_is_a_temporary_one(capsys, tmp_path):
    for out in ([], [f"--out={tmp_path / 'none'}"], ["--out="]):
        code, told = ended(raising(KeyError("x")), capsys, *out)
        assert code == 1
        log = Path(re.search(r"the file (\S+),", told)[1])
        assert "KeyError" in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        log.unlink()


def test_nothing_in_the_place_of_the_file_is_followed_or_waited_for(tmp_path):
    (tmp_path / "kept").write_text("kept")
    for make in (
        lambda path: path.symlink_to(tmp_path / "kept"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        make(folder / LOG)
        log = Path(re.search(r"the file (\S+),", bugs.sentence(KeyError("x"), str(folder)))[1])
        assert log.parent != folder
        log.unlink()
    assert (tmp_path / "kept").read_text() == "kept"


def test_two_bugs_share_a_file(tmp_path):
    for number in range(2):
        bugs.sentence(KeyError(number), str(tmp_path))
    log = (tmp_path / LOG).read_text()
    assert "KeyError: 0" in log
    assert "KeyError: 1" in log


def test_where_nothing_can_be_written_the_traceback_is_printed(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bugs.tempfile, "mkstemp", full)
    told = bugs.sentence(KeyError("x"), None)
    assert "No space left on device" in told
    assert "KeyError: 'x'" in told


def test_other_processes_are_told(capsys, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(start, "has_joined", lambda: True)
    monkeypatch.setattr(start, "hear_of_others", lambda: heard.append("waited"))
    monkeypatch.setattr(start, "abandon", heard.append)
    assert ended(raising(KeyError("x")), capsys, f"--out={tmp_path}")[0] == 1
    assert heard == ["waited", 1]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError(13, "Permission denied", "a\x1bb"), r"error: a\\x1bb: Permission denied"),
        (MemoryError(), "error: not enough memory for these settings"),
        (MemoryError("3 GiB"), r"error: not enough memory for these settings \(3 GiB\)"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
            "error: not enough memory on the devices for these settings",
        ),
    ],
)
def test_what_the_system_refuses_is_no_bug(error, sentence, capsys, tmp_path):
    code, told = ended(raising(error), capsys, f"--out={tmp_path}")
    assert code == 2
    assert re.fullmatch(sentence, told.strip())
    assert not (tmp_path / LOG).exists()
