"""Ids as files spell them: the ones that are missing, that lost digits, and 7.0 for 7."""

import re
from collections.abc import Sequence
from typing import Any

from fedvlr_jax.data.text import is_missing, is_plain

MISSING = -1  # code of an id that is not there
_WHOLE = re.compile(r"(-?[0-9]+)\.0*")  # how a column of floats spells a whole number
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]*[1-9][0-9]*")
# How spreadsheets and floats spell a number that is too long for them. 12E3 may well be an id.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]{1,3}(?:[.,][0-9]+[eE]\+?[0-9]+|[eE]\+[0-9]+)")
_LARGEST = 2**53  # floats from here on have lost digits


def spelled(value: Any) -> str | None:
    """An id as text without surrounding space; None where it is missing.

    Raises:
        ValueError: it is no id; the message says what was expected.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("expected an id")
    if is_missing(value):
        return None
    text = value.strip()
    if not is_plain(text):
        raise ValueError("expected an id")
    number = whole(text)
    lost = number is not None and abs(int(number)) >= _LARGEST
    if lost or _SCIENTIFIC.fullmatch(text):
        raise ValueError(
            "expected an id with all of its digits, which a spreadsheet or a float has cut"
        )
    return text


def whole(text: str) -> str | None:
    """`7` for an id that is spelled `7.0`; None for any other id."""
    found = _WHOLE.fullmatch(text)
    return found and found[1]


def as_whole_numbers(ids: Sequence[str]) -> list[str] | None:
    """The ids of a column with `7` for every `7.0`; None where nothing is to be changed.

    A column that holds `1.5` as well is no column of whole numbers and stays as it is.

    Raises:
        ValueError: it holds `1.5`, `7` and `7.0`, so that nobody knows whether the last two are
            one; the message is the last one.
    """
    numbers = [whole(text) for text in ids]
    if not any(numbers):
        return None
    if not any(_FRACTION.fullmatch(text) for text in ids):
        return [number or text for number, text in zip(numbers, ids, strict=True)]
    known = set(ids)
    for number, text in zip(numbers, ids, strict=True):
        if number in known:
            raise ValueError(text)
    return None


class Codes(dict[Any, int]):
    """Code of every id of a column by what stands in the file; `ids` has the ids by code.

    Looking up what was not there before gives it the next code, or `MISSING`, and raises
    ValueError where it is no id.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __missing__(self, value: Any) -> int:
        text = spelled(value)
        if text is None:
            code = MISSING
        elif text == value:
            code = len(self.ids)
            self.ids.append(text)
        else:
            code = self[text]
        self[value] = code
        return code
