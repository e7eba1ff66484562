"""Links between pages, as a reader of the repository follows them; MkDocs checks the site."""

import json
import re

import pytest

from tests.docs.pages import DOCS, PAGES, name

LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(path):
    headings = re.findall(r"^#+ (.*)$", text_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, DOCS / "first_steps.ipynb"], ids=name)
def test_links_lead_somewhere(path):
    for link in LINK.findall(text_of(path)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place) if place else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link
