"""Clean text from raw files: missing values, control characters, HTML in titles."""

import html
import re
import unicodedata
from html.entities import html5
from typing import Any

from fedvlr_jax.foreign import short

_SHOWN = 40  # characters of what was found that a message shows
_CONTROL = ("Cc", "Cs")  # control characters, and halves of characters
# What programs write where they have no value: pandas, R, SQL, JavaScript, C, Go and Excel.
_MISSING = {
    *("na", "nan", "nat", "null", "none", "n/a", "#n/a", "#na", "-nan", r"\n", "<na>", "<nan>"),
    *("<null>", "<none>", "<nil>", "(null)", "[null]", "(none)", "(not set)", "undefined", "n.a."),
    *("nan.0", "+nan.0", "nan(ind)", "-nan(ind)", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
    *("#n/a n/a", "#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!"),
}
# Space, and letters without width that copying and the joining of files leave behind.
_AROUND = "".join(filter(str.isspace, map(chr, range(0x3001)))) + (
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
)
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};"
    r"|(?:amp|lt|gt|quot|nbsp)(?![A-Za-z0-9=;]))"
)
_MOST_ESCAPES = 3  # a title that was escaped more often is no title
# Elements of HTML that turn up in titles. `a < b` and `<3` are no tags, neither is `<unknown>`.
_WITHIN_WORDS = "b big em font i mark s small strike strong sub sup tt u"
_BETWEEN_WORDS = (
    "a abbr bdi bdo blockquote body br center cite code dd del div dl dt form h1 h2 h3 h4 h5 h6 "
    "head hr html img input ins label li link meta nobr ol option p pre q samp section select "
    "span table tbody td th thead title tr ul var wbr"
)


def _tags(names: str) -> str:
    return rf"</?(?:{names.replace(' ', '|')})(?:\s[^<>]*)?/?>"


_TAG_WITHIN = re.compile(_tags(_WITHIN_WORDS), re.I)
_TAG_BETWEEN = re.compile(_tags(_BETWEEN_WORDS) + "|<!--.*?(?:-->|$)|<!doctype[^<>]*>", re.I | re.S)
# Scripts and style sheets, which some data sets have instead of a title.
_SCRIPT = re.compile(
    r"(?i:</?(?:script|style|noscript|iframe)\b|<!\[CDATA\[)"
    r"|\bgetTime\b|\baPageStart\b|\bue_t0\b"
    r"|\bvar\s+[A-Za-z_$][\w$]*\s*=|\bfunction(?:\s+[\w$]+)?\s*\([^()]*\)\s*\{"
    r"|\b(?:document|window)\.[A-Za-z]+\s*[.(=\[]|\bjavascript:[\w.]+\(|=>\s*\{"
    r"|\{\s*[a-z-]+\s*:[^{};]+;[^{}]*\}"
)


def _unescaped(found: re.Match) -> str:
    name = found[0][1:]
    if name.startswith("#"):
        return html.unescape(found[0])
    return html5.get(name, found[0])


def is_plain(text: str) -> bool:
    """Whether there is no control character and no half of a character in `text`."""
    return not any(unicodedata.category(letter) in _CONTROL for letter in text)


def plain(text: str) -> str:
    """`text` on one line, without control characters and halves of characters."""
    kept = (" " if unicodedata.category(letter) in _CONTROL else letter for letter in text)
    return " ".join("".join(kept).split())


def trimmed(text: str) -> str:
    """`text` without space and without letters of no width around it."""
    return text.strip(_AROUND)


def is_missing(text: str) -> bool:
    """Whether `text` is empty or one of the markers that programs write for a missing value."""
    bare = trimmed(text)
    return not bare or bare.lower() in _MISSING


def shown(found: Any) -> str:
    """What a cell holds, for a message: as Python writes it, cut where it is long."""
    if isinstance(found, str):
        return repr(short(found, _SHOWN))
    return short(repr(found), _SHOWN)


def readable(text: str) -> tuple[str, str]:
    """A title as people read it, and what was done to it to get there.

    Entities of HTML become the characters that they stand for, tags go, and what is no title at
    all is empty: a marker of a missing value, a script, a style sheet.

    Returns:
        The title on one line, and a few words that follow "titles ...", empty if nothing
        but space was taken away.
    """
    if is_missing(text):
        done = "are markers of a missing value and count as missing"
        return "", done if text.strip() else ""
    if "<" not in text and "&" not in text and not _SCRIPT.search(text):
        return plain(text), ""
    known = text
    for _ in range(_MOST_ESCAPES):
        known = _ENTITY.sub(_unescaped, known)
    if _SCRIPT.search(known):
        return "", "are scripts or style sheets and count as missing"
    title = plain(_TAG_BETWEEN.sub(" ", _TAG_WITHIN.sub("", known)))
    if is_missing(title):
        return "", "hold markup only and count as missing"
    return title, "" if title == plain(text) else "held HTML, whose entities were read and tags cut"
