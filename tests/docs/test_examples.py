"""Examples in pages and docstrings: `>>>` lines give what they say, other Python is valid."""

import doctest
import importlib
import re

import pytest

from fedvlr_jax import config
from fedvlr_jax.errors import naming_flags
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, name

# Blocks that end in a result, on data that every reader has and as small as they work.
SMALLER = {
    "data/KU": "synthetic",
    "rounds=100": "rounds=2, clients=30, items=40, dim=8, buckets=1",
    "clients=500, items=200": "clients=40, items=30",
}
TRAINING = ("README.md", "docs/prepare.md")
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


@pytest.mark.parametrize("page", TRAINING)
def test_blocks_that_train(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / page, "python")
    code = block.text
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    exec(compile(code, page, "exec"), {})
    assert re.search(r"\d", capsys.readouterr().out)


def test_every_setting_and_page_is_told_of():
    """By the pages that newcomers start from."""
    home = (DOCS / "index.md").read_text() + (ROOT / "README.md").read_text()
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or path.name in home, path.name
    flags = (DOCS / "flags.md").read_text()
    assert all(f"`--{setting}`" in flags for setting in config.leaves())
