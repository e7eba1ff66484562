"""Text from outside that ends up in tables and on terminals."""

import unicodedata

_SHOWN = 40  # characters of what was found that a message shows
_CONTROL = ("Cc", "Cs")  # control characters, and halves of characters
# What programs write where they have no value: pandas, R, SQL and JavaScript.
_MISSING = frozenset(
    ("na", "nan", "nat", "null", "none", "n/a", "#n/a", "#na", "-nan", r"\n", "<na>", "<nan>")
) | {"<null>", "<none>", "(null)", "undefined"}


def is_plain(text: str) -> bool:
    """Whether there is no control character and no half of a character in `text`."""
    return not any(unicodedata.category(letter) in _CONTROL for letter in text)


def plain(text: str) -> str:
    """`text` on one line, without control characters and halves of characters."""
    kept = (" " if unicodedata.category(letter) in _CONTROL else letter for letter in text)
    return " ".join("".join(kept).split())


def is_missing(text: str) -> bool:
    """Whether `text` is empty or one of the markers that programs write for a missing value."""
    return not text.strip() or text.strip().lower() in _MISSING


def shown(text: str) -> str:
    """`text` for a message: quoted, its control characters escaped, cut where it is long."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
