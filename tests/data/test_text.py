import pytest

from fedvlr_jax.data.text import is_plain, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A title", "A title"),
        (" two\r\nlines\tand  more ", "two lines and more"),
        ("half an emoji \ud83d", "half an emoji"),
        ("\x1b]0;pwn\x07red \x1b[31m", "]0;pwn red [31m"),
        ("标题 «é» 🎧", "标题 «é» 🎧"),
        ("\x00", ""),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected
    assert is_plain(plain(text))
    plain(text).encode()
