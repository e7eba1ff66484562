"""Titles and names for people, whatever a hand or a spreadsheet has done to the tables."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.data.labels import history_in_time, read_labels
from fedvlr_jax.errors import UserError

ITEMS = "itemID,original_id,title,image\n0,A,Lamp,a.jpg\n1,B,Cup,b.jpg\n2,C,Spoon,c.jpg\n"
USERS = "userID,original_id,preference_image\n0,ann,0.25\n1,bob,1.0\n"


def labels(folder, items=ITEMS, users=USERS):
    for name, text in (("items.csv", items), ("users.csv", users)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(folder, 2, 3)


def test_titles_and_names(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"images": {"folder": "images"}}))
    found = labels(tmp_path)
    assert found.titles == ["Lamp", "Cup", "Spoon"]
    assert found.items == ["A", "B", "C"]
    assert found.users == ["ann", "bob"]
    assert found.pictures == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.preferences == {"image": ["0.25", "1.0"]}
    assert found.folder.folder == tmp_path / "images"


@pytest.mark.parametrize(
    "items",
    [
        ITEMS.replace("\n", "\r\n"),
        ITEMS.replace("\n", "\r"),
        "\ufeff" + ITEMS,
        ITEMS.replace("itemID,", " itemID ,").replace(",title", ", title"),
        ITEMS.replace("\n1,", "\n1.0,"),
        ITEMS.replace("Lamp", '"Lamp"'),
        ITEMS.replace("Lamp", '"La\x1bmp"').replace("La\x1bmp", "\x1bLamp\x07"),
        ITEMS.replace("Lamp", '"\nLamp\n"'),
        ITEMS + "\n\n",
        ITEMS + ",,,\n",
        ITEMS.replace("0,A,Lamp,a.jpg\n", "") + "0,A,Lamp,a.jpg\n",
    ],
)
def test_the_same_table_in_other_writings(tmp_path, items):
    found = labels(tmp_path, items)
    assert found.titles == ["Lamp", "Cup", "Spoon"]
    assert found.items == ["A", "B", "C"]


@pytest.mark.parametrize(
    "marker", ["", " ", "NA", "NaN", "nan", "NULL", "None", "none", "N/A", r"\N", "<NA>", "\x1b"]
)
def test_markers_of_a_missing_value_are_no_titles(tmp_path, marker):
    assert labels(tmp_path, ITEMS.replace("Cup", marker)).titles == ["Lamp", "", "Spoon"]


def test_titles_cannot_steer_a_terminal(tmp_path):
    title = "\x1b]0;pwned\x07\x1b[31mRed\x1b[0m \x9b2J\r\x08cup"
    found = labels(tmp_path, ITEMS.replace("Cup", title.replace("\r", "")))
    assert found.titles[1].isprintable()
    assert "Red" in found.titles[1]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (ITEMS.replace("image", "title"), ["line 1", "'title'", "2 times"]),
        (ITEMS.replace("image", " title "), ["line 1", "'title'", "2 times"]),
        (ITEMS.replace("title", "itemID"), ["line 1", "'itemID'", "2 times"]),
        (ITEMS.replace("itemID", "item"), ["line 1", "no column itemID"]),
        (ITEMS.replace(",", ";"), ["line 1", "no column itemID"]),
        ("# goods\n" + ITEMS, ["line 1", "no column itemID"]),
        (ITEMS.replace("Cup", "Cup, red"), ["line 3", "5 cells", "expected 4 as in the header"]),
        (ITEMS.replace("B,Cup,", "B,"), ["line 3", "3 cells", "expected 4 as in the header"]),
        (ITEMS.replace("Cup", '"Cup'), ["line 3", "does not end"]),
        (ITEMS.replace("Cup", "C\0p"), ["line 3", "NUL"]),
        (ITEMS.replace("Cup", "Caf\xe9").encode("latin-1"), ["line 3", "0xe9", "UTF-8"]),
        (ITEMS.encode("utf-16"), ["line 1", "UTF-16"]),
        (ITEMS.replace("Cup", "x" * 3_000_000), ["line 3", "1,000,000 bytes"]),
        (ITEMS.replace("\n1,", "\nNA,"), ["line 3", "'NA', a marker of a missing value"]),
        (ITEMS.replace("\n1,", "\n1e0,"), ["line 3", "'1e0'"]),
        (ITEMS.replace("\n1,", "\n" + "1" * 5000 + ","), ["line 3", "itemID is '1111"]),
        (ITEMS.replace("\n1,", "\n0,"), ["every itemID from 0 to 2 once"]),
        (ITEMS.replace("\n1,", "\n7,"), ["every itemID from 0 to 2 once"]),
        ("", ["empty"]),
    ],
)
def test_tables_that_are_spoilt_are_refused_by_line(tmp_path, items, words):
    with pytest.raises(UserError) as caught:
        labels(tmp_path, items)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    for word in (str(tmp_path / "items.csv"), *words):
        assert word in sentence, sentence


@pytest.mark.parametrize("value", ["", "NA", "much", "nan", "inf", "-0.1", "1.5", "1e400", "0,5"])
def test_preferences_that_are_no_shares_are_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"users\.csv"):
        labels(tmp_path, users=USERS.replace("0.25", value))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 20_000,
        "{}",
        '{"images": null}',
        '{"images": []}',
        '{"images": {"folder": 7}}',
        '{"images": {"folder": null}}',
        '{"images": {"folder": ["a"]}}',
        '{"images": {"folder": "nowhere"}}',
        '{"images": {"folder": "items.csv"}}',
        '{"images": {"folder": "a\\u0000b"}}',
        json.dumps({"images": {"folder": "x" * 100_000}}),
    ],
)
def test_metadata_that_a_hand_has_spoilt_names_no_pictures(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    found = labels(tmp_path)
    assert found.folder is None
    assert found.pictures is None


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "items.csv")
    with pytest.raises(UserError, match=r"items\.csv: is a pipe"):
        read_labels(tmp_path, 2, 3)
    (tmp_path / "items.csv").unlink()
    os.mkfifo(tmp_path / "dataset.json")
    assert read_labels(tmp_path, 2, 3).folder is None


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["9", "10", "100"], [0, 1, 2]),
        (["100", "10", "9"], [2, 1, 0]),
        (["1e3", "20", "300.5"], [1, 2, 0]),
        (["9007199254740993", "9007199254740992", "1"], [2, 1, 0]),
        (["2024-02-01", "2023-12-31T23:00:00", "2024-01-01"], [1, 2, 0]),
        (["2024-01-01T00:30:00+02:00", "2023-12-31T23:00:00Z", "2023-12-31"], [2, 0, 1]),
        # Where one is not told, nothing says what came first.
        (["3", "", "1"], [0, 1, 2]),
        (["3", "NA", "1"], [0, 1, 2]),
        (["3", "2024-01-01", "1"], [0, 1, 2]),
        (["later", "sooner", "now"], [0, 1, 2]),
        (["2", "2", "1"], [2, 0, 1]),
    ],
)
def test_histories_are_in_order_of_time_never_of_text(tmp_path, times, expected):
    table = pd.DataFrame(
        {"userID": "0.0", " itemID": ["5", "6", "7"], "timestamp": times, "split_label": "0"}
    )
    other = table.assign(userID="1", timestamp="0")
    pd.concat([table, other]).to_csv(tmp_path / "inter.csv", index=False)
    np.testing.assert_array_equal(history_in_time(tmp_path, 0), np.array([5, 6, 7])[expected])
