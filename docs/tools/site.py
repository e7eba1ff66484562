"""What the site has beside docs/*.md: pages of the root folder, and the notebook. A MkDocs hook."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Pages of the root folder by their names in the site, where README would be the home page.
_OF_ROOT = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_FILES_OF_ROOT = ("CITATION.cff", "examples/one_file.py", "fedvlr_jax/protocol.py")
_NOTEBOOK = "first_steps.ipynb"
# What the theme's offline plugin has a page fetch, and the site's own.
_FETCHED, _OWN = "https://unpkg.com/iframe-worker/shim", "assets/frame_worker.js"
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are not in docs/ as Markdown."""
    for name, page in _OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    for name in _FILES_OF_ROOT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    notebook = json.loads((ROOT / "docs" / _NOTEBOOK).read_text("utf-8"))
    page = Path(_NOTEBOOK).with_suffix(".md").name
    files.append(File.generated(config, page, content="\n\n".join(markdown(notebook))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that are right in the repository to where the site has the same."""
    return _LINK.sub(lambda found: in_site(found[1]), markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Take the script for searching from disk from the site itself, not from elsewhere."""
    return output.replace(_FETCHED, _OWN)


def on_post_template(output_content: str, **_: Any) -> str:
    """Likewise on the page for what is not there."""
    return on_post_page(output_content)


def in_site(link: str) -> str:
    """A link of the repository as one of the site."""
    if "://" in link:
        return link
    path = link.removeprefix("../").removeprefix("docs/")
    if path == _NOTEBOOK:
        return Path(_NOTEBOOK).with_suffix(".md").name
    return _OF_ROOT.get(path, path)


def markdown(notebook: dict[str, Any]) -> Iterable[str]:
    """The cells of an executed notebook and what they print and draw, as Markdown."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = data["image/png"].strip()
                yield f"![drawn by the cell above](data:image/png;base64,{picture})"
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                yield f"```text\n{text.rstrip()}\n```"
