import io
import json
import os
import zipfile

import numpy as np
import pytest

from fedvlr_jax import record
from fedvlr_jax.errors import UserError

METRICS = {"warm/ndcg@50": 1.5, "hr@10": None}
SUMMARY = {
    "rounds_done": 6,
    "best_round": 4,
    "stopped_early": False,
    "valid": METRICS,
    "test": METRICS,
    "popularity": {"valid": METRICS, "test": METRICS},
    "timing": {"round_seconds_median": 0.1},
}
LINE = {"round": 2, "train_loss": None, "seconds": 0.5, "valid/warm/ndcg@50": 3.0}
PER_USER = {
    "user": np.arange(3),
    "rank": np.array([0, -1, 7]),
    "history_length": np.array([1, 2, 3]),
    "warm": np.array([True, False, True]),
    "views": np.array(["sum", "gate"]),
    "view_weights": np.full((3, 2), 0.5, np.float32),
    "reliance": np.full((3, 3), 1 / 3, np.float32),
}
RANKINGS = {"users": np.arange(3), "topk": np.full((3, 50), -1)}


def test_what_a_run_has_written_is_read(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    assert record.summary(tmp_path) == SUMMARY
    (tmp_path / "config.json").write_text('{"seed": 3, "jax": {"version": "1"}}')
    assert record.settings(tmp_path, ("seed",))["seed"] == 3
    assert record.evaluations(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(LINE)}\n" * 2)
    assert record.evaluations(tmp_path) == [LINE, LINE]
    np.savez_compressed(tmp_path / "per_user.npz", **PER_USER)
    np.savez_compressed(tmp_path / "rankings.npz", **RANKINGS)
    for found, wanted in (
        (record.per_user(tmp_path), PER_USER),
        (record.rankings(tmp_path), RANKINGS),
    ):
        assert found.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"rounds_done": "6"}, "rounds_done is not a number"),
        ({"rounds_done": 10**400}, "rounds_done is not a number"),
        ({"rounds_done": True}, "rounds_done is not a number"),
        ({"rounds_done": 6.0}, "rounds_done is not a number"),
        ({"best_round": -5}, "best_round is not a number"),
        ({"best_round": None}, "best_round is not a number"),
        ({"stopped_early": "no"}, "stopped_early is neither"),
        ({"valid": []}, "valid is not an object"),
        ({"test": {"warm/ndcg@50": "high"}}, "test/warm/ndcg@50 is not a number"),
        ({"test": {"warm/ndcg@50": 10**400}}, "test/warm/ndcg@50 is not a number"),
        ({"test": {"warm/ndcg@50": [1.0]}}, "test/warm/ndcg@50 is not a number"),
        ({"test": {"x" * 10**6: "high"}}, "is not a number"),
        ({"popularity": 3}, "popularity is not an object"),
        ({"popularity": {"test": 3}}, "popularity/test is not an object"),
        ({"timing": {"round_seconds_median": {}}}, "round_seconds_median is not a number"),
    ],
)
def test_an_edited_summary_is_refused(tmp_path, edit, words):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | edit))
    with pytest.raises(UserError, match=words) as refusal:
        record.summary(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'summary.json'}: ")
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("name", SUMMARY)
def test_a_summary_without_an_entry_is_refused(tmp_path, name):
    (tmp_path / "summary.json").write_text(
        json.dumps({k: SUMMARY[k] for k in SUMMARY if k != name})
    )
    with pytest.raises(UserError, match=rf"summary\.json: {name} is missing"):
        record.summary(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[" * 20_000, "not readable as JSON"),
        ("null", "expected a JSON object"),
        ('{"round": ' + "9" * 5_000 + "}", "not readable as JSON"),
        (json.dumps(LINE | {"round": "2"}), "round is not a number"),
        (json.dumps(LINE | {"round": -1}), "round is not a number"),
        (json.dumps(LINE | {"round": 2.5}), "round is not a number"),
        (json.dumps(LINE | {"valid/warm/ndcg@50": "3"}), "valid/warm/ndcg@50 is not a number"),
        (json.dumps(LINE | {"train_loss": {}}), "train_loss is not a number"),
        (json.dumps({"round": 2, "seconds": 1.0}), "valid/warm/ndcg@50 is missing"),
        (json.dumps(LINE).replace("3.0", "NaN"), "not readable as JSON"),
    ],
)
def test_a_spoilt_evaluation_is_told_with_its_line(tmp_path, line, words):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(LINE)}\n{line}\n{json.dumps(LINE)}\n")
    with pytest.raises(UserError, match=rf"metrics\.jsonl, line 2: .*{words}"):
        record.evaluations(tmp_path)


@pytest.mark.parametrize("cut", range(1, len(json.dumps(LINE)), 7))
def test_an_evaluation_that_is_being_written_is_left_out(tmp_path, cut):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)[:cut]}")
    assert record.evaluations(tmp_path) == [LINE]


def _saved(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _promising(shape, size=64):
    """An archive whose `rank` has a header that promises more than there is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in PER_USER.items():
            member = io.BytesIO()
            np.save(member, array)
            content = member.getvalue()
            if name == "rank":
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    header, {"descr": "<i8", "fortran_order": False, "shape": shape}
                )
                content = header.getvalue() + bytes(size)
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


OBJECTS = np.array([{"a": 1}, [2], "x"], dtype=object)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"text" * 100,
        _saved(**PER_USER)[:-40],
        _saved(user=PER_USER["user"]),
        _saved(**PER_USER | {"rank": OBJECTS}),
        _saved(**PER_USER | {"rank": np.arange(4)}),
        _saved(**PER_USER | {"rank": np.zeros((3, 1), int)}),
        _saved(**PER_USER | {"rank": np.array(["1", "2", "3"])}),
        _saved(**PER_USER | {"user": np.array([0, 2, 1])}),
        _saved(**PER_USER | {"user": np.array([-1, 0, 1])}),
        _saved(**PER_USER | {"user": np.int64(3)}),
        _saved(**PER_USER | {"view_weights": np.full((3, 3), 0.5)}),
        _saved(**PER_USER | {"view_weights": np.full((3, 2), np.nan)}),
        _saved(**PER_USER | {"reliance": np.full((3, 2), 0.5)}),
        _saved(**PER_USER | {"warm": np.arange(3)}),
        _promising((1 << 40,)),
        _promising((1 << 62, 1 << 62)),
        _promising((-3,)),
    ],
    ids=range(19),
)
def test_spoilt_arrays_are_refused(tmp_path, content):
    (tmp_path / "per_user.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"per_user\.npz is damaged \(") as refusal:
        record.per_user(tmp_path)
    assert len(str(refusal.value)) < 400


def test_what_cannot_be_read_is_told(tmp_path):
    readers = {
        "summary.json": record.summary,
        "config.json": record.settings,
        "metrics.jsonl": record.evaluations,
        "rankings.npz": record.rankings,
        "per_user.npz": record.per_user,
    }
    for name, read in readers.items():
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: is a pipe, expected a plain file"):
            read(tmp_path)


@pytest.mark.parametrize("value", [[1], {}, {"a": 1}, [[[]]]])
def test_a_setting_is_a_single_value(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({"seed": value}))
    with pytest.raises(UserError, match="seed is not a single value"):
        record.settings(tmp_path)
