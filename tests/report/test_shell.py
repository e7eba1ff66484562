import os
import time

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.report import sections, shell
from fedvlr_jax.report.sections import Section

PAGE = shell.page("A page", "", "<p>x</p>")


@pytest.mark.parametrize("name", ["page.html", "page.htm", "PAGE.HTML", "a b.html"])
def test_a_page_is_written_and_renewed(tmp_path, name):
    shell.write(tmp_path / name, PAGE)
    shell.write(tmp_path / name, shell.page("Another", "", ""))
    assert "<title>Another</title>" in (tmp_path / name).read_text()


def test_a_page_of_sections_is_a_page(tmp_path):
    (tmp_path / "page.html").write_text(sections.page("One", {"a": "b"}, [Section("x", "y")]))
    shell.write(tmp_path / "page.html", PAGE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inter.csv", b"userID,itemID,split_label\n0,1,0\n"),
        ("notes.html", b"<!doctype html><title>mine</title>"),
        ("empty.html", b""),
        ("thesis.pdf", b"%PDF-1.7"),
        ("config.json", b"{}"),
        ("late.html", b" " * 5000 + PAGE.encode()),
        ("x.npy", bytes(range(256))),
        ("utf16.html", PAGE.encode("utf-16")),
        ("no_suffix", b"x"),
        ("link.html", None),
    ],
)
def test_what_is_no_page_is_kept(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        (tmp_path / "data").write_bytes(b"mine")
        path.symlink_to(tmp_path / "data")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=r"^--out=.*: this file is there already.*; expected the name of a new"
    ):
        shell.write(path, PAGE)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "suffix", "csv", "nothing", "parent"])
def test_places_where_no_page_can_be(tmp_path, kind):
    path = tmp_path / "x.html"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        names = {"suffix": "x", "csv": "x.csv", "nothing": "..", "parent": "none/x.html"}
        path = tmp_path / names[kind]
    begun = time.monotonic()
    with pytest.raises(
        UserError, match=r"^--out=.*(expected the name of a new file|cannot be written)"
    ):
        shell.write(path, PAGE)
    assert time.monotonic() - begun < 2
    assert not path.is_file()


def test_text_of_strangers_is_text():
    assert shell.text('<b>"x"\x1b[2J\x9b\udcff') == "&lt;b&gt;&quot;x&quot;\\x1b[2J\\x9b\\udcff"
    page = sections.page("\x1b[2J", {"run": "a\x07"}, [Section("s\x1b", "t\udcff")])
    assert "\x1b" not in page
    assert "\x07" not in page
    page.encode("utf-8")
