import pytest

from fedvlr_jax.data.text import is_missing, is_plain, plain


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


@pytest.mark.parametrize(
    "marker",
    [
        "NA",
        "NaN",
        "NULL",
        "None",
        "N/A",
        r"\N",
        "<NA>",
        "#N/A",
        "-nan",
        "NaT",
        "(null)",
        "undefined",
    ],
)
def test_markers_of_a_missing_value(marker):
    for text in (marker, marker.lower(), marker.upper(), f" {marker}\t"):
        assert is_missing(text)
    for text in (f"{marker}x", f"{marker} {marker}", f"'{marker}'"):
        assert not is_missing(text)
    assert is_missing("")
    assert is_missing("  ")


@pytest.mark.parametrize("text", ["0", "-", "?", "Nan's bread", "N", "no", "NA-12", "\\"])
def test_values_that_are_not_missing(text):
    assert not is_missing(text)
