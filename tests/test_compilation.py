"""Compiled programs are kept for the next start, and nothing that is wrong with them ends a run."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from fedvlr_jax import compilation

# Compiles some programs, and tells what came of it. The rest of the package would take seconds.
PROGRAM = """
import runpy
import sys
import jax

keep = runpy.run_path(sys.argv[1])["keep"]
counted = {"cache_hits": 0, "cache_misses": 0}

def heard(event, **_):
    name = event.rpartition("/")[2]
    if name in counted:
        counted[name] += 1

jax.monitoring.register_event_listener(heard)
print(keep(*sys.argv[2:]))
x = jax.device_put([[1.0, 2.0], [3.0, 4.0]])
print(float(jax.jit(lambda x: (x[0] @ x[1]) ** 2)(jax.numpy.asarray(x))))
print(*counted.values())
"""
CACHE = "JAX_COMPILATION_CACHE_DIR"


def started(*arguments, before="", **variables):
    """What a new process says of keeping, of its result, of hits and of misses."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_PERSISTENT", CACHE))}
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, compilation.__file__, *map(str, arguments)],
        env=inherited | {k: str(v) for k, v in variables.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    kept, result, counts = done.stdout.splitlines()
    assert float(result) == 121.0
    return kept, *map(int, counts.split())


def entries(folder):
    return list(folder.rglob("*-cache"))


def test_the_second_start_compiles_nothing(tmp_path):
    kept, hits, misses = started(tmp_path)
    assert (kept, hits) == ("None", 0)
    assert misses == len(entries(tmp_path)) > 1
    assert started(tmp_path) == ("None", misses, 0)


def test_what_is_damaged_is_compiled_again(tmp_path):
    started(tmp_path)
    for path in entries(tmp_path):
        os.truncate(path, 100)
    assert started(tmp_path)[1] == 0


def test_a_disk_that_fills_up_ends_nothing(tmp_path):
    # No file can be longer than that.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
    _, _, misses = started(tmp_path, before=limit)
    assert misses
    assert all(path.stat().st_size <= 9 for path in entries(tmp_path))


def test_the_users_own_folder_is_the_default(tmp_path):
    _, _, misses = started(XDG_CACHE_HOME=tmp_path)
    folder = tmp_path / "fedvlr_jax" / "compiled"
    assert len(entries(folder)) == misses > 0
    assert folder.stat().st_mode & 0o777 == 0o700


def test_it_can_be_turned_off(tmp_path):
    assert started("off", **{"XDG_CACHE_HOME": tmp_path, CACHE: tmp_path}) == ("None", 0, 0)
    assert not entries(tmp_path)


def test_a_folder_that_jax_was_told_comes_first(tmp_path):
    told = {CACHE: tmp_path / "told", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0}
    _, _, misses = started(XDG_CACHE_HOME=tmp_path / "own", **told)
    assert len(entries(tmp_path / "told")) == misses > 0
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/fast/a"}, "/fast/a"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "relative"}, "/home/a/.cache"),
    ],
)
def test_the_own_folder_is_where_the_system_wants_it(monkeypatch, environment, folder):
    monkeypatch.setattr(sys, "platform", "linux")
    assert compilation.own_folder(environment) == Path(folder, "fedvlr_jax", "compiled")


def test_on_macos_it_is_in_the_library(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert str(compilation.own_folder({"HOME": "/Users/a"})).startswith("/Users/a/Library/Caches/")


def refused(monkeypatch, *arguments):
    """Why programs are not kept; JAX is told nothing."""
    monkeypatch.setattr(compilation.jax.config, "update", lambda *_: pytest.fail("kept"))
    return compilation.keep(*arguments)


def test_a_folder_that_cannot_be_made_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    sentence = refused(monkeypatch, tmp_path / "file" / "below")
    assert sentence.startswith("compiled programs are not kept for the next start: ")
    assert "Not a directory" in sentence
    assert "--compilation_cache=DIR" in sentence


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(compilation.shutil, "disk_usage", lambda _: usage(1000))
    assert "the disk is full" in refused(monkeypatch, tmp_path)


def test_what_others_can_write_is_not_run(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setattr(compilation, "own_folder", lambda: tmp_path)
    monkeypatch.setattr(type(compilation.jax.config), "jax_compilation_cache_dir", None)
    tmp_path.chmod(0o777)
    assert "others can write to it" in refused(monkeypatch)


def test_what_was_not_used_for_longest_goes(tmp_path):
    (tmp_path / "machine").mkdir()
    for age, name in enumerate("edcba"):
        path = tmp_path / "machine" / f"{name}-cache"
        path.write_bytes(b"x" * 10)
        os.utime(path, (1e9 - age, 1e9 - 100))
    (tmp_path / "machine" / "empty-cache").touch()
    compilation.thin(tmp_path, 30)
    assert sorted(path.name[0] for path in entries(tmp_path)) == ["c", "d", "e"]
    compilation.thin(tmp_path, 30)
    assert len(entries(tmp_path)) == 3
