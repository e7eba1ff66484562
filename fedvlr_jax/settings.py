"""Settings: dataclass fields with a default, a help text and a check.

The command-line flags are made from the same fields (`experiments/cli.py`), so a flag, its Python
name and its place in a JSON file never differ.
"""

import dataclasses
import enum
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from fedvlr_jax.errors import UserError

_LARGEST = 2**31 - 1  # of an int32, which counts and ids are on the devices
MOST_RUNS = 10_000  # that one study may ask for
_KINDS = {str: "a text", Path: "a path", int: "a whole number", float: "a number"}
_TEXTS = (str, Path)
_BASES = {"0x": 16, "0o": 8, "0b": 2}
Check = tuple[Callable[[Any], bool], str]  # whether a value is valid, and what was expected
CheckOrMaker = Check | Callable[[], Check]

POSITIVE: Check = (lambda v: math.isfinite(v) and v > 0, "a finite number above 0")
NOT_NEGATIVE: Check = (lambda v: math.isfinite(v) and v >= 0, "a finite number of at least 0")
SEED: Check = (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295")
SHARE: Check = (lambda v: 0 <= v < 1, "a number from 0 to below 1")
PROBABILITY: Check = (lambda v: 0 < v < 1, "a number between 0 and 1")
FOLDER: Check = (lambda v: v != "", "a folder")
FILE: Check = (lambda v: v != "", "a file")
ANY: Check = (lambda _: True, "")


def at_least(smallest: int, largest: int = _LARGEST) -> Check:
    """A whole number from `smallest` on that an int32 can hold, or up to `largest`."""
    return (lambda v: smallest <= v <= largest, f"a whole number from {smallest} to {largest}")


AT_LEAST_ZERO: Check = at_least(0)
AT_LEAST_ONE: Check = at_least(1)
SEEDS: Check = at_least(1, MOST_RUNS)


class Role(enum.Flag):
    """What a setting is to the package beside its value: every list of settings is made of it.

    `PROGRAM` alone, where nothing else is said: programs and results depend on it.
    """

    PROGRAM = 0
    DATA = enum.auto()  # tells which data there are
    SERVER = enum.auto()  # decides which parameters the server has
    CLIENTS = enum.auto()  # counts clients, at most all that there are
    TRACED = enum.auto()  # a compiled program is told it when it runs
    SWITCH = enum.auto()  # so, too, but whether it is above 0 is compiled
    LAYOUT = enum.auto()  # changes no result
    RESUMED = enum.auto()  # may be another when something unfinished is gone on with


def setting(
    default: Any,
    text: str,
    check: CheckOrMaker = ANY,
    role: Role = Role.PROGRAM,
    **more: Any,
) -> Any:
    """A dataclass field that is a setting; `text` says what it is and its unit.

    One that is a list has the names that may be in it as `known`, none where any may; one of whole
    numbers has a check that is of each of them.
    """
    metadata = {"help": text, "check": check, "role": role, **more}
    return dataclasses.field(default=default, metadata=metadata)


def path_setting(default: Any, text: str, check: Check = FOLDER, role: Role = Role.PROGRAM) -> Any:
    """A setting that is a path; the text "~" at its beginning is the user's home."""
    return setting(default, text, check, role, is_path=True)


def choice(
    default: Any,
    text: str,
    known: tuple[str, ...],
    role: Role = Role.PROGRAM,
    whose: str = "one of ",
    **more: Any,
) -> Any:
    """A setting that takes one of the names in `known`."""
    expected = f"{whose}{', '.join(known)}"
    text = f"{text} {expected[0].upper()}{expected[1:]}."
    return setting(default, text, (lambda v: v in known, expected), role, **more)


def check_of(leaf: dataclasses.Field) -> Check:
    """What a value of a setting is checked by now; plugins may have added to what it takes."""
    check = leaf.metadata["check"]
    return check() if callable(check) else check


def with_role(leaves: Mapping[str, dataclasses.Field], role: Role) -> tuple[str, ...]:
    """The names of those settings that have a role, in order."""
    return tuple(name for name, leaf in leaves.items() if role in leaf.metadata["role"])


def setting_type(leaf: dataclasses.Field) -> type:
    """The Python type that a flag for `leaf` parses: str, int or float."""
    if leaf.type in (str, str | None, tuple[str, ...], tuple[str, ...] | None, tuple[int, ...]):
        return str
    return int if leaf.type in (int, int | None) else float


class UnfitError(ValueError):
    """A value that a setting does not take; the text says what it expects."""


def number(kind: type, text: str) -> int | float:
    """The number that a text is, as Python reads it; whole ones may be written 1e3 or 50.0.

    Args:
        kind: int or float.
        text: as it stands on a command line or in a file.

    Raises:
        ValueError: it is none of its kind.
        OverflowError: it is infinite where a whole one is wanted.
    """
    if kind is float:
        return float(text)
    try:
        return int(text, _BASES.get(text[:2].lower(), 10))
    except ValueError:  # also more digits than Python reads
        return _whole(float(text))


def parsed(kind: type, check: Check, text: str) -> Any:
    """The value of a setting that is written as text, on a command line or in a file.

    Raises:
        UnfitError: the text is of another type or out of range.
    """
    try:
        return fitted(kind, check, text if kind in _TEXTS else number(kind, text))
    except (ValueError, OverflowError):
        raise UnfitError(_expected(kind, check)) from None


def fitted(kind: type, check: Check, value: Any) -> Any:
    """The value of a setting that Python gives: as str, Path, int or float, and in its range.

    Numbers of NumPy, pandas and JAX are taken, whole floats for whole numbers, and paths for text.
    Of a path, "~" at its beginning becomes the user's home.

    Raises:
        UnfitError: the value is of another type or out of range.
    """
    valid, _ = check
    try:
        converted = _CONVERTERS[kind](_plain(value))
    except TypeError:
        raise UnfitError(f"{_expected(kind, check)}, found {kind_of(value)}") from None
    except UnicodeEncodeError:  # a name of bytes, which neither JSON nor checkpoints can hold
        raise UnfitError(f"{_expected(kind, check)}, written in UTF-8") from None
    except (ValueError, OverflowError):  # half a client; a whole number that no float can hold
        raise UnfitError(_expected(kind, check)) from None
    if not valid(converted):
        raise UnfitError(_expected(kind, check))
    return converted


def kind_of(value: Any) -> str:
    """The type of a value that Python gives, in words: "a list"."""
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" or name == "ndarray" else "a"
    return f"{article} {name}"


def argument(name: str, kind: type, check: Check, value: Any) -> Any:
    """What Python gives a function that is no setting, as `fitted` takes it.

    Raises:
        UserError: the value is of another type or out of range.
    """
    try:
        return fitted(kind, check, value)
    except UnfitError as expected:
        raise UserError(f"--{name}={_shown(kind, value)}: expected {expected}") from None


def checked(leaf: dataclasses.Field, value: Any) -> Any:
    """`value` as the type of `leaf`.

    Raises:
        UserError: the value is of another type or out of range.
    """
    if value is None and leaf.default is None:
        return None
    accepted = argument(leaf.name, setting_type(leaf), check_of(leaf), value)
    return os.path.expanduser(accepted) if leaf.metadata.get("is_path") else accepted


def _expected(kind: type, check: Check) -> str:
    return check[1] or _KINDS[kind]


def _shown(kind: type, value: Any) -> str:
    """A value in a sentence: text as it is where text is wanted, else as Python writes it."""
    try:
        return value if isinstance(value, str) and kind in _TEXTS else reprlib.repr(value)
    except ValueError:  # more digits than Python writes
        return hex(value)


def _plain(value: Any) -> Any:
    """A number of NumPy, pandas or JAX, an array without axes, too, as Python's own."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    if np.ma.is_masked(value):
        raise TypeError
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype.itemsize < np.dtype(float).itemsize:
        return float(str(array[()]))  # 0.03, and not 0.029999999329447746, which differs from it
    return value.item()


def _text(value: Any) -> str:
    value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError
    if "\0" in value:
        raise ValueError
    value.encode()
    return str.__str__(value)  # of an enumeration's member its value


def _path(value: Any) -> Path:
    text = _text(value)
    if not text:
        raise ValueError
    return Path(os.path.expanduser(text))


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise TypeError
    if int(value) != value:
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise TypeError
    return float(value) + 0.0  # -0.0 is 0, in names and records, too


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    str: _text,
    Path: _path,
    int: _whole,
    float: _real,
}
