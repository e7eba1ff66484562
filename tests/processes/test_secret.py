import os
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import secret
from tests.experiments import programs


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An environment with a home folder, and a folder for temporary files beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return {"HOME": str(tmp_path / "home")}


def file_of(home):
    return os.path.join(home["HOME"], ".config/fedvlr_jax/secret")


def test_the_variable_is_the_secret():
    assert secret.shared({"FEDVLR_SECRET": "sixteen letters!"}) == b"sixteen letters!"


@pytest.mark.parametrize("given", ["", "short", "fifteen letters"])
def test_a_short_one_is_refused(given):
    with pytest.raises(UserError, match=f"^FEDVLR_SECRET: {len(given)} characters, expected at"):
        secret.shared({"FEDVLR_SECRET": given})


def test_a_file_for_this_user_alone_is_made_and_kept(home):
    made = secret.shared(home)
    assert len(made) == 64
    assert stat.S_IMODE(os.stat(file_of(home)).st_mode) == 0o600
    assert secret.shared(home) == made
    elsewhere = home | {"XDG_CONFIG_HOME": home["HOME"] + "/other"}
    assert secret.shared(elsewhere) != made
    assert os.path.exists(home["HOME"] + "/other/fedvlr_jax/secret")


def test_processes_that_look_at_once_find_the_same(tmp_path):
    script = "from fedvlr_jax.processes import secret; print(secret.shared())"
    kept = {k: v for k, v in programs.environment().items() if k != "FEDVLR_SECRET"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", programs.IN_PARTS + script],
            env=kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""},
            text=True,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in started}) == 1


def test_one_that_is_being_written_is_waited_for(home):
    path = file_of(home)
    os.makedirs(os.path.dirname(path))
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    def write():
        with open(path, "w") as file:
            file.write("0" * 64)

    writing = threading.Timer(0.2, write)
    writing.start()
    assert secret.shared(home) == b"0" * 64
    writing.join()


@pytest.mark.parametrize("content", ["", "short", "x" * 65])
def test_one_that_is_no_secret_is_refused(home, monkeypatch, content):
    monkeypatch.setattr(secret, "_SECONDS_TO_WRITE", 0.1)
    secret.shared(home)
    with open(file_of(home), "w") as file:
        file.write(content)
    with pytest.raises(UserError, match="secret: expected 64 characters; remove it"):
        secret.shared(home)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o777])
def test_one_that_others_can_read_is_refused(home, mode):
    secret.shared(home)
    os.chmod(file_of(home), mode)
    with pytest.raises(UserError, match="other users have access to it; run chmod go-rwx"):
        secret.shared(home)


def test_one_of_another_user_is_refused(home, monkeypatch):
    secret.shared(home)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="belongs to another user"):
        secret.shared(home)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("where", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/proc/none"}])
def test_without_a_home_folder_it_is_among_temporary_files(where):
    made = secret.shared(where)
    path = f"{tempfile.gettempdir()}/fedvlr_jax-{os.geteuid()}/secret"
    with open(path, "rb") as file:
        assert file.read() == made
    assert secret.shared(where) == made


def test_where_nothing_can_be_written_the_variable_is_asked_for(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(UserError, match="set the environment variable FEDVLR_SECRET to the same"):
        secret.shared({"HOME": "/proc/none"})
