"""Check ids: missing ones, ones that have lost digits, and 7.0 for 7."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from fedvlr_jax.data.text import is_missing, is_plain, trimmed

MISSING = -1  # code of an id that is not there
_WHOLE = re.compile(r"(-?[0-9]+)\.0*")  # how a column of floats spells a whole number
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]*[1-9][0-9]*")
# How spreadsheets and floats spell a number that is too long for them. 12E3 may well be an id.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]{1,3}(?:[.,][0-9]+[eE]\+?[0-9]+|[eE]\+[0-9]+)")
_LARGEST = 2**53  # floats from here on have lost digits
_MOST_DIGITS = 16  # of smaller numbers
# 007, +7, 1,234 and 1_234: numbers that programs write in more than one way.
_GROUPED = re.compile(r"[0-9]*|[0-9]{1,3}(?:[,_' .][0-9]{3})+")
# What people and programs write for an unknown user or item; it may also be a real id.
_PLACEHOLDERS = {
    *("-", "--", ".", "?", "-1", "unknown", "missing", "anonymous", "anon", "guest", "nil"),
    *("empty", "blank", "deleted", "[deleted]"),
}
_QUOTES = "'\"`"
_LONGEST = 10_000  # letters of an id


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
    text = trimmed(value)
    if len(text) > _LONGEST or not is_plain(text):
        raise ValueError("expected an id")
    number = whole(text)
    digits = (number or "").lstrip("-0")
    lost = len(digits) > _MOST_DIGITS or int(digits or 0) >= _LARGEST
    if lost or _SCIENTIFIC.fullmatch(text):
        raise ValueError(
            "expected an id with all of its digits; a spreadsheet or a float has cut some"
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


def look_alikes(ids: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of ids that look like an earlier one, each with the position of the earlier one.

    They differ in case, in zeros, signs, quotes or marks between digits, or in how their letters
    are encoded (a full-width digit, an accent apart from its letter, letters without width).
    """
    first: dict[str, int] = {}
    earlier = [first.setdefault(_likeness(text), place) for place, text in enumerate(ids)]
    return [pair for pair in enumerate(earlier) if pair[0] != pair[1]]


def _likeness(text: str) -> str:
    if not text.isascii():
        text = "".join(
            letter
            for letter in unicodedata.normalize("NFKC", text)
            if unicodedata.category(letter) != "Cf"
        )
    text = text.strip(_QUOTES).casefold()
    if text[:1] in "+0123456789" and (number := _GROUPED.fullmatch(text.lstrip("+0"))):
        return re.sub("[^0-9]", "", number[0])
    return text


def placeholders(ids: Sequence[str]) -> list[int]:
    """Positions of ids that may mean an unknown user or item."""
    others_are_negative = sum(text.startswith("-") for text in ids) > 1
    return [
        place
        for place, text in enumerate(ids)
        if (text.lower() in _PLACEHOLDERS and not (text == "-1" and others_are_negative))
        or (text[0] in _QUOTES and is_missing(text.strip(_QUOTES)))
    ]


class Codes(dict[Any, int]):
    """Code of every id of a column, by its text in the file; `ids` has the ids by code.

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
