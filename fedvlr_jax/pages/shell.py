"""Pages that need nothing else: their style, light and dark, and pictures inside them."""

import base64
import html

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
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def data_uri(kind: str, content: bytes) -> str:
    """A file's content as an address; `kind` is like "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
