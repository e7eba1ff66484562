"""Examples in pages and docstrings: `>>>` lines give what they say, other Python is valid."""

import doctest
import importlib
import re

import pytest

from fedvlr_jax import config
from fedvlr_jax.errors import naming_flags
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, name, shape

# Blocks that end in a result, on data that every reader has and as small as they work.
SMALL = "rounds=2, clients=30, items=40, dim=8, devices=1, buckets=1"
SMALLER = {
    "data/KU": "synthetic",
    "rounds=100": SMALL,
    "clients=500, items=200": "clients=40, items=30",
    "clients=1000, items=500, rounds=30": SMALL,
}
TRAINING = {"README.md": 2, "docs/prepare.md": 1}  # how many there are
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "fedvlr_jax").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.fixture(autouse=True)
def _from_python():
    with naming_flags(False):
        yield


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_blocks_of_python(path):
    names = {}
    for block in blocks(path, "python"):
        if ">>>" in block.text:
            example = doctest.DocTestParser().get_doctest(
                block.text, names, name(path), str(path), block.line - 1
            )
            assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
            names = example.globs
        else:
            compile(block.text, f"{name(path)}, line {block.line}", "exec")


@pytest.mark.parametrize(
    ("page", "number"), [(page, k) for page, number in TRAINING.items() for k in range(number)]
)
def test_blocks_that_train(page, number, tmp_path, monkeypatch, capsys):
    """What they print is in form what the page shows below them, if it shows something."""
    monkeypatch.chdir(tmp_path)
    every = blocks(ROOT / page)
    places = [k for k, block in enumerate(every) if block.language == "python"]
    assert len(places) == TRAINING[page]
    code = every[places[number]].text
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    exec(compile(code, page, "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"\d", said)
    for below in every[places[number] + 1 :][:1]:
        if below.language == "text":
            assert [*map(shape, said.splitlines())] == [*map(shape, below.text.splitlines())]


def test_every_setting_and_page_is_told_of():
    """By the pages that newcomers start from."""
    home = (DOCS / "index.md").read_text() + (ROOT / "README.md").read_text()
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or path.name in home, path.name
    flags = (DOCS / "flags.md").read_text()
    assert all(f"`--{setting}`" in flags for setting in config.leaves())
