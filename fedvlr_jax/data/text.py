"""Text from outside that ends up in tables and on terminals."""

import unicodedata

_CONTROL = ("Cc", "Cs")  # control characters, and halves of characters


def is_plain(text: str) -> bool:
    """Whether there is no control character and no half of a character in `text`."""
    return not any(unicodedata.category(letter) in _CONTROL for letter in text)


def plain(text: str) -> str:
    """`text` on one line, without control characters and halves of characters."""
    kept = (" " if unicodedata.category(letter) in _CONTROL else letter for letter in text)
    return " ".join("".join(kept).split())
