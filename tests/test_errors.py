import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax import errors
from fedvlr_jax.errors import UserError


def in_python(sentence):
    with errors.naming_flags(False):
        return str(UserError(sentence))


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--rounds=0: expected more", "rounds=0: expected more"),
        ("--source: missing", "source: missing"),
        ("the run (--eval_clients) is", "the run (eval_clients) is"),
        (
            "--late=1: expected 0 with --noise_multiplier",
            "late=1: expected 0 with noise_multiplier",
        ),
        ("--user: expected --user=ID or --top=N", "user: expected user=ID or top=N"),
        ("--data=a--b: no such folder", "data=a--b: no such folder"),
        ("--data=/x/--y: no such folder", "data=/x/--y: no such folder"),
        ("a -- b", "a -- b"),
        ("warm HR@50 -- here", "warm HR@50 -- here"),
        ("--run=r: bad (--data=d: gone); --data=DIR", "run=r: bad (data=d: gone); data=DIR"),
    ],
)
def test_python_hears_of_arguments_and_programs_of_flags(flags, arguments):
    assert str(UserError(flags)) == flags
    assert in_python(flags) == arguments


def test_a_sentence_within_a_sentence_is_told_in_the_same_way():
    with errors.naming_flags(False):
        inner = UserError("--data=d: gone")
        assert (
            str(UserError(f"--run=r: unreadable ({inner})")) == "run=r: unreadable (data=d: gone)"
        )


def test_the_setting_that_is_complained_of():
    assert UserError("--server_lr=x: bad").setting == "server_lr"
    assert UserError("--source: missing").setting == "source"
    assert UserError("file.csv, line 3: --rounds").setting is None


@given(st.text())
def test_a_sentence_is_one_line_that_no_terminal_obeys(text):
    said = str(UserError(f"a {text} b"))
    assert said.isprintable() or all(c.isprintable() or not c.isascii() for c in said)
    assert "\n" not in said
    assert "\x1b" not in said
    said.encode("utf-8")


@pytest.mark.parametrize("size", np.logspace(3, 8, 11).astype(int))
def test_a_sentence_ends_however_much_was_found(size):
    said = str(UserError(f"--data={'x' * size}: no such folder"))
    assert len(said) < 5000
    assert said.startswith("--data=xxx")
    assert said.endswith("x: no such folder")
