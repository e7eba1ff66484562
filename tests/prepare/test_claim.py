"""Whose a folder of a data set in the making is, after whatever ended the attempt before."""

import json

import numpy as np
import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare import PrepareConfig, prepare
from fedvlr_jax.prepare.claim import claimed
from fedvlr_jax.server.rows import RowStore
from tests.server import clips

ONE, OTHER = {"clip": "a", "batch": 4}, {"clip": "b", "batch": 4}
FINISHED = {
    "settings": ONE,
    "kept": {"users": 3, "items": 7, "train": 10},
    "raw_files": [{"path": "/raw", "sha256": "0"}],
}


class Trouble(Exception):  # noqa: N818 -- not an error of anybody's
    """What nobody expects."""


def attempt(out, settings, error, rows=0):
    """A preparation that ends by `error` after it has encoded some rows."""

    def begin():
        with claimed(out, settings):
            store = RowStore(out / "image_features.npy", 3, "key")
            if rows:
                store.append(np.ones((rows, 3), np.float32))
            raise error

    with pytest.raises(type(error)):
        begin()


ENDS = [
    UserError("a folder that is no CLIP"),
    Trouble(),
    NotImplementedError("coming soon"),
    TypeError("shapes"),
    KeyboardInterrupt(),
    SystemExit(130),
    MemoryError(),
    RecursionError(),
    BrokenPipeError(),
    AssertionError(),
    StopAsyncIteration(),
]


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_an_attempt_that_has_encoded_nothing_leaves_the_folder_to_anybody(tmp_path, error):
    out = tmp_path / "out"
    attempt(out, ONE, error)
    assert not out.exists() or not list(out.iterdir())
    with claimed(out, OTHER) as finished:
        assert finished is None


@pytest.mark.parametrize("error", ENDS[1:], ids=lambda error: type(error).__name__)
def test_rows_that_are_encoded_are_kept_for_the_same_settings(tmp_path, error):
    out = tmp_path / "out"
    attempt(out, ONE, error, rows=5)
    with pytest.raises(UserError, match="--clip was a, now b"), claimed(out, OTHER):
        pass
    with claimed(out, ONE):
        assert RowStore(out / "image_features.npy", 3, "key").done == 5


def test_a_kill_before_the_first_row_leaves_the_folder_to_anybody(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".tmp-settings.json").write_text(json.dumps(ONE))
    RowStore(out / "image_features.npy", 3, "key")
    with claimed(out, OTHER):
        (begun,) = out.glob(".tmp-*")
        assert json.loads(begun.read_text()) == OTHER


def test_a_mistake_does_not_take_along_what_others_have_encoded(tmp_path):
    out = tmp_path / "out"
    attempt(out, ONE, Trouble(), rows=5)
    attempt(out, ONE, UserError("another mistake"))
    with claimed(out, ONE):
        assert RowStore(out / "image_features.npy", 3, "key").done == 5


def test_a_corrected_command_is_not_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [f"{user},{item},{item}" for user in range(3) for item in range(6)]
    (raw / "log.csv").write_text("\n".join(["user,item,time", *lines]) + "\n")
    (raw / "items.tsv").write_text("item\tname\n" + "".join(f"{k}\tcup {k}\n" for k in range(6)))
    settings = {
        "source": "csv",
        "raw": str(raw / "log.csv"),
        "item_table": str(raw / "items.tsv"),
        "user_column": "user",
        "item_column": "item",
        "time_column": "time",
        "title_column": "name",
    }
    folder, out = clips.save(tmp_path / "clip"), tmp_path / "out"
    clips.edit(folder, "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(UserError, match="the model takes 64 x 64"):
        prepare(PrepareConfig.of(**settings, clip=str(folder)), out)
    assert not out.exists()
    done = prepare(PrepareConfig.of(**settings, clip="random:tiny", seed=1), out)
    assert done.summary["kept"]["users"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"settings": []},
        {"kept": None},
        {"kept": {}},
        {"kept": {"users": "3", "items": 7, "train": 10}},
        {"kept": {"users": 3.0, "items": 7, "train": 10}},
        {"kept": [3, 7, 10]},
        {"raw_files": {}},
        {"raw_files": ["/raw"]},
        {"raw_files": [{"path": 7, "sha256": "0"}]},
        {"raw_files": [{"path": "/raw"}]},
        {"raw_files": [[["/raw"]]]},
    ],
)
def test_metadata_that_a_hand_has_spoilt_is_told(tmp_path, change):
    (tmp_path / "dataset.json").write_text(json.dumps(FINISHED | change))
    sentence = r"dataset\.json: not what a preparation has written"
    with pytest.raises(UserError, match=sentence), claimed(tmp_path, ONE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


def test_settings_that_a_hand_has_made_enormous_are_told_in_a_short_line(tmp_path):
    settings = ONE | {"clip": "\x1b[31m" + "x" * 1_000_000}
    (tmp_path / "dataset.json").write_text(json.dumps(FINISHED | {"settings": settings}))
    with pytest.raises(UserError) as caught, claimed(tmp_path, ONE):
        pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
