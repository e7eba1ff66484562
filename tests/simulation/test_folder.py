"""Whether a run may go on in a folder, and what a person hears before it does."""

import errno
import json
import os

import pytest

from fedvlr_jax import files
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.simulation import folder
from tests.simulation.test_environment import NOW
from tests.test_record import SUMMARY

SETTINGS = {"rounds": 6, "seed": 3, "private_state": "device", "data_fingerprint": "f", "jax": NOW}


@pytest.fixture(autouse=True)
def _told(monkeypatch):
    """As in a process that has not told anything yet."""
    monkeypatch.setattr(folder, "_told", set())


def claim(out, **settings):
    """Notes of a claim."""
    with folder.claimed(out, SETTINGS | settings) as notes:
        return notes


def begun(out, jax=NOW, checkpoint=2):
    """A run's folder that has come to a checkpoint."""
    out.mkdir()
    stored = SETTINGS | {"jax": jax}
    if jax is None:
        del stored["jax"]
    (out / "config.json").write_text(json.dumps(stored))
    if checkpoint:
        step = out / "checkpoints" / f"{checkpoint:06d}"
        step.mkdir(parents=True)
        (step / "checksums.json").write_text("{}")


def jax_of(out):
    return json.loads((out / "config.json").read_text())["jax"]


def test_a_run_writes_down_what_jax_it_is_of(tmp_path):
    assert claim(tmp_path / "run") == []
    assert jax_of(tmp_path / "run") == NOW == folder.environment_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 1),
        ("jax_enable_x64", True),
    ],
)
@pytest.mark.parametrize("checkpoint", [0, 2])
def test_other_draws_are_refused(tmp_path, name, value, checkpoint):
    begun(tmp_path / "run", NOW | {name: value}, checkpoint)
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(UserError, match=f"{name} was {value} and is now {NOW[name]}"):
        claim(tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_another_version_is_told_and_written_down(tmp_path):
    begun(tmp_path / "run", NOW | {"version": "0.9.1"})
    (note,) = claim(tmp_path / "run")
    assert "began with jax 0.9, goes on with 0.10" in note
    assert jax_of(tmp_path / "run")["version"] == "0.9.1, 0.10.2"
    assert len(claim(tmp_path / "run")) == 1  # it stays a run of two versions


def test_what_has_no_checkpoint_begins_anew(tmp_path):
    begun(tmp_path / "run", NOW | {"version": "0.9.1"}, checkpoint=0)
    assert claim(tmp_path / "run") == []
    assert jax_of(tmp_path / "run") == NOW


def test_an_older_run_goes_on_with_a_note(tmp_path):
    begun(tmp_path / "run", None)
    (note,) = claim(tmp_path / "run")
    assert "began with an older version of this package" in note
    assert jax_of(tmp_path / "run")["version"] == "unknown, 0.10.2"


def test_a_finished_run_stays_what_it_was(tmp_path):
    began = NOW | {"version": "0.9.1", "platform": "gpu"}
    begun(tmp_path / "run", began)
    (tmp_path / "run" / "summary.json").write_text(json.dumps(SUMMARY))
    assert claim(tmp_path / "run") == []
    assert jax_of(tmp_path / "run") == began


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[" * 20_000),
        ("config.json", "null"),
        ("config.json", '{"seed": ' + "9" * 5_000 + "}"),
        ("config.json", json.dumps(SETTINGS | {"jax": 3})),
        ("config.json", json.dumps(SETTINGS | {"jax": [NOW]})),
        ("config.json", json.dumps(SETTINGS | {"seed": "x" * 10**6})),
        ("config.json", json.dumps(SETTINGS | {"seed": "\x1b[2Jgone"})),
        ("config.json", json.dumps(SETTINGS | {"private_state": ["host"] * 9_999})),
        ("config.json", "{}"),
        ("summary.json", "{"),
        ("summary.json", "{}"),
        ("summary.json", json.dumps(SUMMARY | {"rounds_done": "many"})),
        ("summary.json", json.dumps(SUMMARY | {"rounds_done": 10**300})),
        ("summary.json", json.dumps(SUMMARY | {"stopped_early": 1})),
    ],
    ids=range(15),
)
def test_an_edited_file_is_refused_in_a_sentence(tmp_path, name, content):
    begun(tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=r"run.*expected|run.*not readable as JSON") as refusal:
        claim(tmp_path / "run")
    assert len(str(refusal.value)) < 800
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "name",
    ["config.json", "summary.json", "metrics.jsonl", "rankings.npz", "per_user.npz", ".lock"],
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_before_the_run(tmp_path, name, make):
    begun(tmp_path / "run")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    make(tmp_path / "run" / name)
    with pytest.raises(UserError, match=f"{name}: is a (pipe|folder), expected a plain file"):
        claim(tmp_path / "run")


@pytest.mark.parametrize("name", ["checkpoints", "private", "events"])
def test_what_is_no_folder_is_refused_before_the_run(tmp_path, name):
    begun(tmp_path / "run", checkpoint=0)
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(UserError, match=f"{name}: is not a folder"):
        claim(tmp_path / "run")


NAMES = ["²", "-5", "٣", "999999", "1e9", "+7", "000", "12345", "best", "0" * 200]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [os.mkdir, lambda path: open(path, "w").close()], ids="df")
def test_what_only_looks_like_a_checkpoint_counts_as_none(tmp_path, name, make):
    begun(tmp_path / "run")
    make(tmp_path / "run" / "checkpoints" / name)
    assert claim(tmp_path / "run") == []
    with pytest.raises(UserError, match=r"--rounds=1: the run in .* has done 2"):
        claim(tmp_path / "run", rounds=1)


def _no(*_, **__):
    raise OSError(_no.number, os.strerror(_no.number))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_folder_without_links_is_told_once(tmp_path, monkeypatch, number):
    _no.number = number
    monkeypatch.setattr("os.symlink", _no)
    monkeypatch.setattr("os.link", _no)
    (note,) = claim(tmp_path / "run")
    assert "no symbolic links: checkpoints/best is a text" in note
    assert claim(tmp_path / "run") == []
    folder._told.clear()
    notes = claim(tmp_path / "b", private_state="host")
    assert ["symbolic" in notes[0], "hard links" in notes[1]] == [True, True]
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [".lock", "config.json"]


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL]
)
def test_a_folder_without_locks_is_told(tmp_path, monkeypatch, number):
    _no.number = number
    monkeypatch.setattr("fcntl.flock", _no)
    (note,) = claim(tmp_path / "run")
    assert "no locks: do not start a second process" in note


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_folder_that_cannot_wait_for_its_disk_is_written(tmp_path, monkeypatch, number):
    _no.number = number
    monkeypatch.setattr("os.fsync", _no)
    claim(tmp_path / "run")
    assert jax_of(tmp_path / "run") == NOW


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_no_more_is_told(tmp_path, monkeypatch, number):
    _no.number = number
    monkeypatch.setattr("os.fsync", _no)
    with pytest.raises(UnwritableError, match=os.strerror(number)):
        claim(tmp_path / "run")
    monkeypatch.undo()
    claim(tmp_path / "run")


def test_what_a_hand_has_put_in_the_place_of_a_temporary_file_is_not_written_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".tmp-x").symlink_to("mine")
    files.write_text(tmp_path / "x", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    os.mkfifo(tmp_path / ".tmp-x")  # written to, it would be waited for
    files.write_text(tmp_path / "x", "newer")
    assert (tmp_path / "x").read_text() == "newer"
