"""Comma-separated lists in flags."""

from collections.abc import Collection

from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import POSITIVE, UnfitError, parsed


def names(flag: str, text: str, known: Collection[str]) -> list[str]:
    """The names in a comma-separated list.

    Raises:
        UserError: a name that is not known or appears twice.
    """
    parts = text.split(",")
    for name in parts:
        if name not in known:
            raise UserError(f"--{flag}={text}: expected names from {', '.join(known)}")
    return distinct(flag, text, parts)


def distinct(flag: str, text: str, parts: list) -> list:
    """The values that were read from a list.

    Raises:
        UserError: one appears twice.
    """
    if len(set(parts)) != len(parts):
        raise UserError(f"--{flag}={text}: a value is named twice")
    return parts


def positive_numbers(flag: str, text: str) -> tuple[float, ...]:
    """The numbers in a comma-separated list.

    Raises:
        UserError: one is not a number above 0, or appears twice.
    """
    try:
        numbers = [parsed(float, POSITIVE, part) for part in text.split(",")]
        return tuple(distinct(flag, text, numbers))
    except (UnfitError, UserError):
        raise UserError(
            f"--{flag}={text}: expected different numbers above 0, like 0.001,0.01"
        ) from None
