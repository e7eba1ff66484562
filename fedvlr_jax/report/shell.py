"""Pages that need nothing else: their style, light and dark."""

import html
from pathlib import Path

from fedvlr_jax import files
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import printable

_GENERATOR = '<meta name="generator" content="fedvlr_jax">'  # which every page begins with
_HEAD = 1024  # bytes that hold it
_SUFFIXES = (".html", ".htm")
_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --ink: #1d2430;
  --soft: #5d6778; --line: #dfe3e9; --bar: #3466c2; --hit: #1d7a46; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --card: #1e232b;
  --ink: #e8ebf0; --soft: #9aa4b4; --line: #333b47; --bar: #7aa2f0; --hit: #63c58d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
table { border-collapse: collapse; }
"""


def page(title: str, style: str, body: str) -> str:
    """A whole page.

    Args:
        title: of the window, plain text.
        style: CSS beside what all pages share.
        body: HTML.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{_GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def text(plain: str) -> str:
    """Plain text as HTML."""
    return html.escape(printable(plain))


def check_place(out: Path) -> None:
    """Refuse to write a page where anything else is that somebody may want to keep.

    Raises:
        UserError: something is there that is no page of this package, or the name is no page's.
    """
    where, expected = f"--out={out}", "expected the name of a new file that ends in .html"
    if not out.name or out.name == "..":
        raise UserError(f"{where}: is a folder, {expected}")
    try:
        with files.open_plain(out) as file:
            is_page = _GENERATOR.encode() in file.read(_HEAD)
    except UserError as error:
        reason = str(error).removeprefix(f"{out}: ").partition(", ")[0]
        raise UserError(f"{where}: {reason}, {expected}") from None
    except FileNotFoundError:
        if out.suffix.lower() not in _SUFFIXES:
            raise UserError(f"{where}: a page is written, {expected}") from None
        return
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from None
    if not is_page:
        raise UserError(
            f"{where}: this file is there already, and this program has not written it; {expected}"
        )


def write(out: Path, page: str) -> None:
    """Write a page, in the place of an older one or of none.

    Raises:
        UserError: something else is there, or it cannot be written.
    """
    check_place(out)
    try:
        files.write_text(out, page)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror or error})") from None
