import os
import socket

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.files import plain_size


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
