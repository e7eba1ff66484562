"""Text that somebody else wrote, as it may be shown to people: on terminals and in spreadsheets."""

import re
from typing import Any

# What terminals obey or hide: control characters but tab and new line, marks that turn the
# direction of writing, other ends of lines; and bytes of file names that are no UTF-8.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What spreadsheets take for a formula, and what `cell` has put before it.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal would obey instead of showing it.

    Example:
        >>> print(printable("red \x1b[31m"))
        red \x1b[31m
    """
    return _OBEYED.sub(lambda match: ascii(match[0])[1:-1], text)


def short(value: Any, most: int = 200) -> str:
    """The value as text, cut after so many characters: what a file holds may be of any length."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def words_of(error: BaseException) -> str:
    """What somebody else's exception says, in one line, cut; its kind where it says nothing."""
    return short(" ".join(str(error).split())) or type(error).__name__


def cell(text: str) -> str:
    """The text as a cell of a table that no spreadsheet runs: "'" comes before a formula.

    Numbers are no formulas. `from_cell` gives the text again.

    Example:
        >>> cell("=1+1"), cell("-1.5"), cell("a title"), from_cell(cell("@home"))
        ("'=1+1", '-1.5', 'a title', '@home')
    """
    return f"'{text}" if _is_formula(text) else text


def from_cell(text: str) -> str:
    """The text that `cell` made a cell of."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    if not _FORMULA.match(text):
        return False
    try:
        float(text.lstrip("'"))
    except ValueError:
        return True
    return text != text.strip()
