import pytest

from fedvlr_jax.data.text import is_missing, is_plain, plain, readable


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
        *("<nil>", "[null]", "(none)", "(not set)", "N.A.", "nan.0", "-nan(ind)", "-1.#IND"),
        *("1.#QNAN", "#N/A N/A", "#NULL!", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!"),
    ],
)
def test_markers_of_a_missing_value(marker):
    around = (f" {marker}\t", f"\u00a0{marker}\u2003", f"\ufeff{marker}", f"{marker}\u200b \u2060")
    for text in (marker, marker.lower(), marker.upper(), *around):
        assert is_missing(text)
    for text in (f"{marker}x", f"{marker} {marker}", f"'{marker}'"):
        assert not is_missing(text)
    assert is_missing("")
    assert is_missing("  ")


@pytest.mark.parametrize("text", ["0", "-", "?", "Nan's bread", "N", "no", "NA-12", "\\"])
def test_values_that_are_not_missing(text):
    assert not is_missing(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Shampoo &amp; Conditioner", "Shampoo & Conditioner"),
        ("Shampoo &amp;amp; Conditioner", "Shampoo & Conditioner"),
        ("Men&#39;s &#x27;Best&#X27; &quot;Hat&quot;", "Men's 'Best' \"Hat\""),
        ("Don&apos;t &amp stop", "Don't & stop"),
        ("Caf&eacute;&nbsp;Noir", "Café Noir"),
        ('<span class="a">Soap</span>', "Soap"),
        ("&lt;b&gt;Soap&lt;/b&gt;", "Soap"),
        ("H<sub>2</sub>O<br/>Bottle", "H2O Bottle"),
        ("One<!-- two -->Three <IMG SRC='x'>", "One Three"),
        ("1 &lt; 2", "1 < 2"),
    ],
)
def test_html_in_titles(text, expected):
    assert readable(text) == (expected, "held HTML, whose entities were read and tags cut")


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c",
        "I <3 you",
        "AT&T, Q&A and R&D;",
        "rock&notes?x=1&copy=2",
        "<unknown> by <artist>",
        "&notanentity;",
        "Function: a variable = var",
        "The getaway time",
        "Love {Deluxe}: Remastered; Live",
        "Java Script for beginners",
        "JavaScript: The Good Parts",
        "JavaScript:The Definitive Guide",
        "Function (Reprise) {Live}",
        "My document. The end",
        "A window.",
        "GETTIME watch",
        "x<y",
        "5 > 3",
    ],
)
def test_titles_that_are_no_html(text):
    assert readable(text) == (text, "")


@pytest.mark.parametrize(
    "text",
    [
        "var aPageStart = (new Date()).getTime();\n var ue_t0 = ue_t0 || 1;",
        "var ue_t0=window.ue_t0||+new Date();",
        "<script>alert(1)</script>Soap",
        "&lt;script type='a'&gt;x",
        "<style>.a{color:red}</style>",
        ".a-row { color: #333; }",
        "(function(e){var c=e;})(window);",
        "document.getElementById('x')",
        "window.ue = 1",
        "$(document).ready(function() { x })",
        "(new Date()).getTime()",
        "javascript:void(0)",
        "<SCRIPT SRC=x>",
    ],
)
def test_scripts_are_no_titles(text):
    assert readable(text) == ("", "are scripts or style sheets and count as missing")


@pytest.mark.parametrize(
    "text", ["<br>", "<b></b>", "&nbsp;", "<p>N/A</p>", "<i>null</i>", "<div/>"]
)
def test_markup_without_text_is_no_title(text):
    assert readable(text) == ("", "hold markup only and count as missing")


def test_markers_are_no_titles():
    for text in ("nan", "NULL", " N/A ", "<NA>", r"\N"):
        assert readable(text) == ("", "are markers of a missing value and count as missing")
    assert readable(" ") == ("", "")


@pytest.mark.parametrize(
    "part", ["function ", " ", "<b ", "<!--", "{a:", "&amp;", "var ", "document.", "=> ", "{ a: b;"]
)
def test_long_titles_take_no_time(part):
    for text in (part * 50_000, part + " " * 200_000, "function" + part * 50_000):
        readable(text)
