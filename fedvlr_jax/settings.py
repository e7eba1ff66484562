"""Settings: dataclass fields with a default, a help text and a check.

The command-line flags are made from the same fields (`experiments/cli.py`), so a flag, its Python
name and its place in a JSON file never differ.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from fedvlr_jax.errors import UserError

_LARGEST = 2**31 - 1  # of an int32, which counts and ids are on the devices
Check = tuple[Callable[[Any], bool], str]  # whether a value is valid, and what was expected

POSITIVE: Check = (lambda v: math.isfinite(v) and v > 0, "a finite number above 0")
NOT_NEGATIVE: Check = (lambda v: math.isfinite(v) and v >= 0, "a finite number of at least 0")
SEED: Check = (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295")
SHARE: Check = (lambda v: 0 <= v < 1, "a number from 0 to below 1")
PROBABILITY: Check = (lambda v: 0 < v < 1, "a number between 0 and 1")
ANY: Check = (lambda _: True, "")


def at_least(smallest: int) -> Check:
    """A whole number from `smallest` on that an int32 can hold."""
    expected = f"a whole number from {smallest} to {_LARGEST}"
    return (lambda v: smallest <= v <= _LARGEST, expected)


AT_LEAST_ZERO: Check = at_least(0)
AT_LEAST_ONE: Check = at_least(1)


def setting(default: Any, text: str, check: Check = ANY) -> Any:
    """A dataclass field that is a setting; `text` says what it is and its unit."""
    return dataclasses.field(default=default, metadata={"help": text, "check": check})


def choice(default: Any, text: str, known: tuple[str, ...], whose: str = "one of ") -> Any:
    """A setting that takes one of the names in `known`."""
    expected = f"{whose}{', '.join(known)}"
    return setting(
        default,
        f"{text} {expected[0].upper()}{expected[1:]}.",
        (lambda v: v in known, expected),
    )


def setting_type(leaf: dataclasses.Field) -> type:
    """The Python type that a flag for `leaf` parses: str, int or float."""
    if leaf.type in (str, str | None, tuple[str, ...], tuple[str, ...] | None):
        return str
    return int if leaf.type in (int, int | None) else float


def checked(leaf: dataclasses.Field, value: Any) -> Any:
    """`value` as the type of `leaf`.

    Raises:
        UserError: the value is of another type or out of range.
    """
    valid, expected = leaf.metadata["check"]
    if value is None and leaf.default is None:
        return None
    wanted = setting_type(leaf)
    fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    try:
        if fits and not isinstance(value, bool) and valid(wanted(value)):
            return wanted(value)
    except OverflowError:  # a whole number that no float can hold
        pass
    expected = expected or f"a value of type {wanted.__name__}"
    raise UserError(f"--{leaf.name}={value}: expected {expected}")
