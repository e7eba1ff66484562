import errno
import os
import socket

import pytest

from fedvlr_jax import files
from fedvlr_jax.errors import UserError, naming_flags
from fedvlr_jax.files import plain_size
from fedvlr_jax.prepare import claim as folder_of_data
from fedvlr_jax.runs.ledger import Ledger
from fedvlr_jax.simulation import folder as folder_of_run


def test_the_size_of_a_plain_file(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("a")
    assert plain_size(tmp_path / "a") == plain_size(tmp_path / "link") == 4


def test_what_is_no_plain_file_is_refused_without_opening_it(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, what in (
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("socket", "a socket"),
            (".", "a folder"),
            ("/dev/null", "a device"),
        ):
            with pytest.raises(UserError, match=f"is {what}, expected a plain file"):
                plain_size(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        plain_size(tmp_path / "nowhere")


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


SPECIAL = {
    "a pipe": _fifo,
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
READERS = {
    "open_plain": lambda path: files.open_plain(path).close(),
    "read_text": files.read_text,
    "read_json": files.read_json,
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_no_plain_file_is_refused_and_nobody_waits(tmp_path, monkeypatch, read, kind):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = tmp_path.relative_to(tmp_path) / "x"
    SPECIAL[kind](path)
    with pytest.raises(UserError, match=f"^x: is {kind}, expected a plain file$"):
        read(path)


def test_a_file_is_as_large_as_expected_at_most(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    with files.open_plain(tmp_path / "x", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(UserError, match="x: has 5 bytes, expected at most 4"):
        files.open_plain(tmp_path / "x", 4)
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)  # a hole: read, it would fill the memory
    with pytest.raises(UserError, match="huge: has 1,099,511,627,776 bytes"):
        files.read_json(tmp_path / "huge")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"[" * 20_000, "not readable as JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "not readable as JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not readable as JSON"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": -Infinity}', "-Infinity is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"3", "expected a JSON object"),
        (b'{"a": 1} {"b": 2}', "not readable as JSON"),
        (b'{"a": "\xff"}', "byte 8 is no text in UTF-8"),
        (b"\xff\xfe{\x00}\x00", "byte 1 is no text in UTF-8"),
    ],
)
def test_what_is_no_json_is_told_in_a_sentence(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as refusal:
        files.read_json(tmp_path / "x.json")
    assert str(refusal.value).startswith(f"{tmp_path / 'x.json'}: ")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_json_of_windows_editors_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": [1.5, null, "\xc3\xa9"]}\r\n')
    assert files.read_json(tmp_path / "x.json") == {"a": [1.5, None, "é"]}
    assert files.read_text(tmp_path / "x.json").startswith("{")


def test_a_write_that_a_full_disk_ends_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as refusal:
        files.write_text(tmp_path / "x", "new")
    assert refusal.value.filename == str(tmp_path / "x")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


@pytest.mark.parametrize(
    ("out", "where"),
    [
        ("file", " is a file"),
        ("to_file", " is a file"),
        ("nowhere", " is a link to nothing"),
        ("loop", " is a link to nothing"),
        ("pipe", " is a file"),
        ("file/below", " {}/file is a file"),
        ("file/far/below", " {}/file is a file"),
        ("nowhere/below", " {}/nowhere is a link to nothing"),
        ("folder/nowhere", " is a link to nothing"),
    ],
)
def test_what_no_folder_can_be_made_of_is_told(tmp_path, out, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for link, target in (
        ("to_file", "file"),
        ("nowhere", "gone"),
        ("loop", "loop"),
        ("folder/nowhere", "gone"),
        ("to_folder", "folder"),
    ):
        (tmp_path / link).symlink_to(target)
    sentence = f"--out={tmp_path / out}:{where.format(tmp_path)}, expected a folder"
    for check in (
        files.check_folder,
        lambda folder: folder_of_run.claimed(folder, {"rounds": 3}).__enter__(),
        lambda folder: folder_of_data.claimed(folder, {}).__enter__(),
        Ledger,
    ):
        with naming_flags(), pytest.raises(UserError) as refused:
            check(tmp_path / out)
        assert str(refused.value) == sentence
    for allowed in ("folder", "to_folder", "new", "new/below", "to_folder/new"):
        files.check_folder(tmp_path / allowed)
