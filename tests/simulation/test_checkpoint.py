"""Runs that go on from a folder that was copied, edited, or lies where there are no links."""

import dataclasses
import errno
import io
import json
import logging
import os
import shutil
import sys
import threading
import zipfile

import pytest

import fedvlr_jax
from fedvlr_jax.errors import Stopped, UnwritableError, UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation import checkpoint
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from tests import worlds
from tests.simulation.test_federated_round import close
from tests.simulation.test_run import assert_same_outcome

SETTINGS = {"rounds": 6, "eval_every": 2, "seed": 3}


class Notes(Silent):
    def __init__(self):
        self.told = []

    def note(self, sentence):
        self.told.append(sentence)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=worlds.dataset())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same, stopped after round 4."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, worlds.StopAfter(4), worlds.dataset())
    assert Checkpoints(out / "checkpoints").rounds() == [2, 4]
    return out


def go_on(out):
    """Notes of a run that goes on to its end."""
    reporter = Notes()
    fedvlr_jax.train(worlds.config(**SETTINGS), out, reporter, worlds.dataset())
    return reporter.told


def _zipped(source, target):
    """As zip tools do that write a link's target as a text."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in source.rglob("*"):
            name = str(path.relative_to(source))
            if path.is_symlink():
                archive.writestr(name, str(path.readlink()))
            elif path.is_file() and path.parent.name != "best":
                archive.write(path, name)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(target)


def _with_best(make):
    def copy(source, target):
        shutil.copytree(source, target, symlinks=True)
        best = target / "checkpoints" / "best"
        best.unlink()
        make(best)

    return copy


COPIES = {
    "links kept": lambda a, b: shutil.copytree(a, b, symlinks=True),
    "links followed": shutil.copytree,
    "links as texts": _zipped,
    "no link": _with_best(lambda _: None),
    "dangling": _with_best(lambda best: best.symlink_to("000099")),
    "elsewhere": _with_best(lambda best: best.symlink_to("../../../..")),
    "to itself": _with_best(lambda best: best.symlink_to("best")),
    "to no round": _with_best(lambda best: best.symlink_to("²")),
    "an empty file": _with_best(lambda best: best.touch()),
    "an empty folder": _with_best(lambda best: best.mkdir()),
    "a pipe": _with_best(os.mkfifo),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copied_run_goes_on_to_the_same_numbers(tmp_path, stopped, whole, copy):
    copy(stopped, tmp_path / "run")
    assert f"{tmp_path / 'run'}: going on after round 4" in go_on(tmp_path / "run")
    assert_same_outcome(tmp_path / "run", whole.out)
    best = tmp_path / "run" / "checkpoints" / "best"
    assert best.readlink().name == f"{whole.summary['best_round']:06d}"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_symbolic_links_best_is_a_text(tmp_path, stopped, whole, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.symlink", refuse)
    shutil.copytree(stopped, tmp_path / "run")
    go_on(tmp_path / "run")
    assert_same_outcome(tmp_path / "run", whole.out)
    best = tmp_path / "run" / "checkpoints" / "best"
    assert best.read_text() == f"{whole.summary['best_round']:06d}\n"


@pytest.mark.parametrize("kept", ["all", "best", "none"])
def test_what_is_kept_does_not_depend_on_the_link(tmp_path, stopped, kept):
    shutil.copytree(stopped, tmp_path / "checkpoints")
    for best in (2, 4):
        for spoil in (lambda link: link.symlink_to("000099"), lambda link: link.write_text("x")):
            folder = tmp_path / f"{best}-{len(list(tmp_path.iterdir()))}"
            shutil.copytree(stopped / "checkpoints", folder, symlinks=True)
            (folder / "best").unlink()
            spoil(folder / "best")
            Checkpoints(folder).thin(kept, best)
            assert Checkpoints(folder).rounds() == {"all": [2, 4], "best": [best], "none": []}[kept]
            assert os.path.lexists(folder / "best") == (kept != "none")


def _as_folder(name):
    return lambda folder: (folder / name).mkdir()


def _as_file(name):
    return lambda folder: (folder / name).write_text("x")


def _as_link(name, target):
    return lambda folder: (folder / name).symlink_to(target)


# Each together, in one folder.
PUT_THERE = {
    "folders": [
        *(_as_folder(name) for name in ("999999", "000006", "²", "-5", "٠٠٠٠٠٩", "9")),
        *(_as_folder(".tmp-best"), _as_file(".tmp-000006"), _as_file(".tmp-gone-000002")),
    ],
    "files": [_as_file("999999"), _as_file("000006")],
    "000006 -> 000002": [_as_link("000006", "000002")],
    "000006 -> nowhere": [_as_link("000006", "nowhere")],
}


@pytest.mark.parametrize("put", PUT_THERE.values(), ids=PUT_THERE)
def test_what_was_put_among_checkpoints_is_no_checkpoint(tmp_path, stopped, whole, put):
    shutil.copytree(stopped, tmp_path / "run", symlinks=True)
    for one in put:
        one(tmp_path / "run" / "checkpoints")
    assert f"{tmp_path / 'run'}: going on after round 4" in go_on(tmp_path / "run")
    assert_same_outcome(tmp_path / "run", whole.out)


def made_before_rows(checkpoints, number, state, progress):
    """Put a checkpoint of a version in the place of one that had no rows, and told of no layout."""
    shutil.rmtree(checkpoints.step(number))
    checkpoints.save(state, progress)
    told = checkpoints.step(number) / "progress" / "metadata"
    content = json.loads(told.read_text())
    assert content.pop("layout") == 1
    told.write_text(json.dumps(content))
    known = checkpoint._checksums(checkpoints.step(number))
    (checkpoints.step(number) / "checksums.json").write_text(json.dumps(known))


OLDER = "000004: made by an older version whose private states lie differently; start anew in"


def test_checkpoints_of_before_rows_are_refused_in_a_sentence(tmp_path, stopped):
    out = shutil.copytree(stopped, tmp_path / "run", symlinks=True)
    simulation, checkpoints = worlds.simulation(**SETTINGS), Checkpoints(out / "checkpoints")
    like = simulation.initial_state(seed=3)
    for number in (2, 4):
        state, progress = checkpoints.load(number, like)
        before = state._replace(private=worlds.opened(simulation, state.private))
        made_before_rows(checkpoints, number, before, progress)
    with pytest.raises(UserError, match=OLDER):
        go_on(out)
    assert checkpoints.rounds() == [2, 4], "what an older version can read is left to it"
    found, progress = checkpoints.load(4, like._replace(private=None))
    assert progress.round == 4
    close(found.server, state.server, tolerance=0)


def test_states_with_other_parts_are_not_taken_for_damage(tmp_path, stopped):
    out = shutil.copytree(stopped, tmp_path / "run", symlinks=True)
    checkpoints = Checkpoints(out / "checkpoints")
    like = worlds.simulation(**SETTINGS).initial_state(seed=3)
    state, progress = checkpoints.load(4, like)
    params = state.server.params
    more = params._replace(fusion=params.fusion | {"another": params.fusion})
    shutil.rmtree(checkpoints.step(4))
    checkpoints.save(state._replace(server=state.server._replace(params=more)), progress)
    with pytest.raises(UserError, match="000004: made by another version, whose states have other"):
        go_on(out)
    assert checkpoints.rounds() == [2, 4]


PROGRESS = dataclasses.asdict(
    Progress(round=4, best_round=2, lines=[{"round": 2}, {"round": 4}], round_seconds=[0.1] * 4)
)


def test_a_progress_is_read():
    assert checkpoint._progress(PROGRESS) == Progress(**PROGRESS)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        PROGRESS | {"more": 1},
        PROGRESS | {"round": "4"},
        PROGRESS | {"round": True},
        PROGRESS | {"best_round": 3},
        PROGRESS | {"best_score": float("nan")},
        PROGRESS | {"best_score": "high"},
        PROGRESS | {"stopped": 0},
        PROGRESS | {"lines": {}},
        PROGRESS | {"lines": [2, 4]},
        PROGRESS | {"lines": [{"round": 2}, {"round": 2}]},
        PROGRESS | {"round_seconds": "fast"},
        PROGRESS | {"total_seconds": None},
    ],
    ids=range(14),
)
def test_what_is_no_progress_is_refused(content):
    with pytest.raises(ValueError, match="its progress has"):
        checkpoint._progress(content)


@pytest.mark.parametrize(
    "checksums",
    ["", "{", "[]", "[" * 20_000, "{}", '{"x": [1, 2]}', '{"x": 3}', '{"x": []}', '{"x": "y"}'],
    ids=range(9),
)
def test_edited_checksums_are_damage(tmp_path, stopped, checksums):
    step = shutil.copytree(stopped / "checkpoints" / "000004", tmp_path / "000004")
    assert checkpoint._is_whole(step)
    (step / "checksums.json").write_text(checksums)
    assert not checkpoint._is_whole(step)


def test_what_the_system_cannot_read_is_not_taken_for_damage(tmp_path, stopped, monkeypatch):
    out = shutil.copytree(stopped, tmp_path / "run")

    def refuse(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(checkpoint, "checksum", refuse)
    with pytest.raises(UserError, match="000004: the checkpoint cannot be read"):
        go_on(out)
    assert Checkpoints(out / "checkpoints").rounds() == [2, 4]


class _Full:
    """In the place of Orbax, on a disk that takes no more."""

    def __init__(self, error):
        self._error = error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def save(self, path, _):
        (path.with_name(path.name + ".orbax-checkpoint-tmp")).mkdir()

        def fail():
            logging.getLogger("absl").error("a long traceback")
            raise self._error

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        fail()


def _of_tensorstore(number):
    words = f"RESOURCE_EXHAUSTED: Error writing: {os.strerror(number)} [os_error_code='{number}']"
    return ValueError(words)


def _of_system(number):
    return OSError(number, os.strerror(number))


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG]


@pytest.mark.parametrize("number", FULL)
@pytest.mark.parametrize("error", [_of_tensorstore, _of_system])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    tmp_path, stopped, whole, monkeypatch, capfd, error, number
):
    out = shutil.copytree(stopped, tmp_path / "run", symlinks=True)
    monkeypatch.setattr(checkpoint, "_WRITES", 0)
    monkeypatch.setattr(checkpoint, "_checkpointer", lambda: _Full(error(number)))
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    checkpoints = Checkpoints(out / "checkpoints")
    with pytest.raises(UnwritableError) as refusal:
        checkpoints.save(_state(), Progress(round=6))
    assert f"round 6 cannot be written ({os.strerror(number)})" in str(refusal.value)
    assert hooks == (sys.excepthook, threading.excepthook, sys.unraisablehook)
    assert capfd.readouterr().err == ""
    assert not list((out / "checkpoints").glob(".tmp-*"))
    monkeypatch.undo()
    if number == errno.ENOSPC:  # there is room again
        go_on(out)
        assert_same_outcome(out, whole.out)


def test_another_failure_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_checkpointer", lambda: _Full(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        Checkpoints(tmp_path / "checkpoints").save(_state(), Progress(round=6))


def _state():
    return worlds.simulation(worlds.dataset(), **SETTINGS).initial_state(seed=3)


def test_the_best_rounds_of_both_last_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def saved(number, best):
        step = checkpoints.folder / f".tmp-{number:06d}"
        (step / "progress").mkdir(parents=True)
        lines = [{"round": k} for k in range(1, number + 1)]
        progress = Progress(round=number, best_round=best, lines=lines)
        (step / "progress" / "metadata").write_text(json.dumps(dataclasses.asdict(progress)))
        checkpoints._finish(step, progress)
        return checkpoints.rounds()

    assert saved(1, 1) == [1]
    assert saved(2, 1) == [1, 2]
    assert saved(3, 1) == [1, 2, 3]
    assert saved(4, 4) == [1, 3, 4]  # going back to 3, the best round would be 1
    assert saved(5, 4) == [4, 5]
