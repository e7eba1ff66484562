import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.data.features import FeatureFile
from fedvlr_jax.data.layout import read_folder
from fedvlr_jax.errors import UserError

ROWS = [
    # user, item, label
    (0, 0, 0),
    (0, 1, 0),
    (0, 2, 1),
    (0, 3, 2),
    (1, 3, 0),
    (1, 4, 0),
    (1, 0, 1),
    (1, 2, 2),
    (2, 1, 0),
    (2, 4, 1),
]


def write(folder, rows=ROWS, name="inter.csv", header=None, features=("image", "text"), n_rows=5):
    folder.mkdir(exist_ok=True)
    tabs = name.endswith(".inter")
    header = header or [
        "userID",
        "itemID",
        "rating",
        "timestamp",
        "x_label" if tabs else "split_label",
    ]
    lines = [header] + [(u, i, 1.0, 100 + k, s) for k, (u, i, s) in enumerate(rows)]
    separator = "\t" if tabs else ","
    text = "\n".join(separator.join(str(v) for v in line) for line in lines) + "\n"
    (folder / name).write_text(text)
    rng = np.random.default_rng(0)
    for modality in features:
        np.save(folder / f"{modality}_features.npy", rng.random((n_rows, 6)).astype("f2"))
    return folder


def refused(folder, *words, needs_content=True):
    with pytest.raises(UserError) as caught:
        read_folder(folder, needs_content)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert str(word) in sentence, sentence


@pytest.mark.parametrize("name", ["inter.csv", "baby.inter"])
def test_reads_both_tables(tmp_path, name):
    data = read_folder(write(tmp_path / "shop", name=name), needs_content=True)
    found = data.interactions
    assert data.name == "shop"
    assert (found.n_clients, found.n_items) == (3, 5)
    np.testing.assert_array_equal(found.items, [0, 1, 3, 4, 1])
    np.testing.assert_array_equal(found.offsets, [0, 2, 4, 5])
    np.testing.assert_array_equal(found.valid, [2, 0, 4])
    np.testing.assert_array_equal(found.test, [3, 2, -1])
    np.testing.assert_array_equal(found.popularity, [1, 2, 0, 1, 1])
    assert data.catalogue.image.shape == (5, 6)
    assert data.notes == ()


def test_row_order_does_not_matter(tmp_path):
    a = read_folder(write(tmp_path / "a"), True)
    b = read_folder(write(tmp_path / "b", rows=ROWS[::-1]), True)
    assert a.fingerprint() == b.fingerprint()


def test_fingerprint_sees_every_part(tmp_path):
    prints = {read_folder(write(tmp_path / "a"), True).fingerprint()}
    changed = [*ROWS]
    changed[0] = (0, 4, 0)
    prints.add(read_folder(write(tmp_path / "b", rows=changed), True).fingerprint())
    folder = write(tmp_path / "c")
    np.save(folder / "text_features.npy", np.ones((5, 6), "f2"))
    prints.add(read_folder(folder, True).fingerprint())
    prints.add(read_folder(write(tmp_path / "d", features=("text",)), True).fingerprint())
    assert len(prints) == 4


def test_either_feature_file_may_be_missing(tmp_path):
    data = read_folder(write(tmp_path / "a", features=("text",)), True)
    assert data.catalogue.image is None
    bare = write(tmp_path / "b", features=())
    assert read_folder(bare, needs_content=False).interactions.n_items == 5
    refused(bare, bare, "image_features.npy", "text_features.npy", "--variant=id")


def test_features_may_hold_items_nobody_touched(tmp_path):
    assert read_folder(write(tmp_path / "a", n_rows=8), True).interactions.n_items == 8


def test_a_line_logged_twice_is_read_once_and_told(tmp_path):
    folder = write(tmp_path / "a")
    lines = (folder / "inter.csv").read_text().splitlines()
    lines.insert(2, lines[1])
    (folder / "inter.csv").write_text("\n".join(lines) + "\n")
    data = read_folder(folder, True)
    assert len(data.interactions.items) == 5
    assert len(data.notes) == 1
    assert "line 3" in data.notes[0]


def bad_rows(change):
    rows = [list(r) for r in ROWS]
    change(rows)
    return [tuple(r) for r in rows]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[3].__setitem__(0, -1), ["line 5", "userID", "'-1'"]),
        (lambda r: r[3].__setitem__(1, 1.5), ["line 5", "itemID", "'1.5'"]),
        (lambda r: r[3].__setitem__(1, "abc"), ["line 5", "itemID", "'abc'"]),
        (lambda r: r[3].__setitem__(1, ""), ["line 5", "itemID", "''"]),
        (lambda r: r[3].__setitem__(1, "nan"), ["line 5", "itemID", "'nan'"]),
        (lambda r: r[3].__setitem__(1, 10**12), ["line 5", "itemID"]),
        (lambda r: r[3].__setitem__(2, 3), ["line 5", "split_label", "'3'", "0, 1 or 2"]),
        (
            lambda r: [x.__setitem__(0, 5) for x in r if x[0] == 2],
            ["userID 2 is missing", "0 to 5"],
        ),
        (lambda r: [x.__setitem__(1, 9) for x in r if x[1] == 4], ["itemID 4 is missing"]),
        (lambda r: r.append((0, 1, 0)), ["line 12", "user 0", "item 1", "second time"]),
        (lambda r: r.append((0, 3, 0)), ["line 12", "user 0", "item 3", "second time"]),
        (lambda r: r.append((0, 4, 2)), ["line 12", "user 0", "second test item"]),
        (lambda r: r[8].__setitem__(2, 2), ["user 2", "no train item"]),
        (lambda r: [x.__setitem__(2, 0) for x in r if x[2] == 1], ["no row has split_label 1"]),
        (lambda r: r.clear(), ["no row below the header"]),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path, change, words):
    folder = write(tmp_path / "a", rows=bad_rows(change))
    refused(folder, folder / "inter.csv", *words)


def test_a_user_with_every_item_in_train_is_refused(tmp_path):
    rows = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
    refused(write(tmp_path / "a", rows=rows, n_rows=2), "user 0", "every item")


def test_missing_things_are_named(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "neither inter.csv nor", needs_content=False)
    write(empty, features=())
    shutil.move(empty / "inter.csv", empty / "a.inter")
    shutil.copy(empty / "a.inter", empty / "b.inter")
    refused(empty, "several *.inter", needs_content=False)
    for k, column in enumerate(("userID", "itemID", "split_label")):
        header = ["userID", "itemID", "rating", "timestamp", "split_label"]
        header[header.index(column)] = "other"
        refused(write(tmp_path / f"c{k}", header=header), "line 1", f"no column {column}")


def test_broken_tables_are_refused(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "inter.csv").write_text("")
    refused(folder, "inter.csv", "empty")
    (folder / "inter.csv").write_bytes("userID,itemID,split_label\n0,é,0\n".encode("latin-1"))
    refused(folder, "inter.csv", "UTF-8")
    (folder / "inter.csv").write_text('userID,itemID,split_label\n0,"1,0\n')
    refused(folder, "inter.csv")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.ones((4, 6)), ["4 rows", "5 items"]),
        (np.ones((5, 6)) * np.array([[1], [1], [np.nan], [1], [1]]), ["row 2", "NaN"]),
        (np.ones((5, 6)) * np.array([[1], [1], [1], [-np.inf], [1]]), ["row 3", "inf"]),
        (np.ones(5), ["(5,)", "(items, width)"]),
        (np.full((5, 6), "x"), ["expected numbers"]),
        (np.array([{"a": 1}] * 5, dtype=object), ["not a plain numpy array"]),
    ],
)
def test_bad_features_are_refused(tmp_path, rows, words):
    folder = write(tmp_path / "a", features=("image",))
    np.save(folder / "image_features.npy", rows, allow_pickle=True)
    refused(folder, *words)


def test_feature_files_must_agree_and_be_whole(tmp_path):
    folder = write(tmp_path / "a")
    np.save(folder / "text_features.npy", np.ones((6, 6), "f4"))
    refused(folder, "5 rows", "text_features.npy 6")
    (folder / "text_features.npy").write_bytes((folder / "image_features.npy").read_bytes()[:70])
    refused(folder, "text_features.npy", "not a plain numpy array")
    (folder / "text_features.npy").write_text(json.dumps([1]))
    refused(folder, "text_features.npy", "not a plain numpy array")


def test_rows_longer_than_the_header_are_refused_not_shifted(tmp_path):
    folder = write(tmp_path / "a")
    text = "userID,itemID,split_label\n0,0,0,1\n0,1,1,2\n"
    (folder / "inter.csv").write_text(text)
    refused(folder, "inter.csv, line 2", "4 cells", "expected 3 as in the header")


def test_a_column_called_line_and_blank_last_lines_do_no_harm(tmp_path):
    folder = write(tmp_path / "a", features=())
    rows = "0,0,0,1\n0,0,0,2\n0,1,1,3\n1,1,0,4\n\n\n"
    (folder / "inter.csv").write_text("userID,itemID,split_label,line\n" + rows)
    refused(folder, "line 3", "second time", needs_content=False)
    rows = rows.replace("0,0,0,2\n", "")
    (folder / "inter.csv").write_text("userID,itemID,split_label,line\n" + rows)
    assert read_folder(folder, False).interactions.n_clients == 2


def test_unreadable_paths_are_told(tmp_path):
    refused(tmp_path / ("x" * 300), "cannot be read")
    folder = write(tmp_path / "a")
    (folder / "inter.csv").unlink()
    (folder / "inter.csv").mkdir()
    refused(folder, "expected exactly one table")
    (folder / "text_features.npy").write_bytes(b"PK\x03\x04half of an archive")
    refused(folder, "text_features.npy", "not a plain numpy array")


def test_the_folder_of_mmrec_is_read_as_it_is(tmp_path):
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b", name="baby.inter")
    for modality in ("image", "text"):
        (theirs / f"{modality}_features.npy").rename(theirs / f"{modality}_feat.npy")
    assert read_folder(ours, True).fingerprint() == read_folder(theirs, True).fingerprint()
    for modality in ("image", "text"):
        (theirs / f"{modality}_feat.npy").rename(theirs / f"{modality}.npy")
    refused(theirs, "image_features.npy", "found baby.inter, image.npy, text.npy")


def test_a_table_that_is_split_by_shares_is_told_to_be_split_anew(tmp_path):
    rows = [*ROWS, (0, 4, 2)]
    refused(write(tmp_path / "a", rows=rows, name="baby.inter"), "line 12", "--source=mmrec")


def test_numbers_of_rows_are_compared_with_the_table_before_features_are_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(FeatureFile, "read", None)
    refused(write(tmp_path / "a", n_rows=4), "4 rows", "5 items", "line 7")


@pytest.mark.parametrize("column", ["userID", "itemID", "split_label"])
@pytest.mark.parametrize("form", ["{}.0", " {}", "0{}", "+{}"])
def test_ids_that_are_written_otherwise_are_read_exactly_and_told(tmp_path, column, form):
    clean = write(tmp_path / "a")
    table = pd.read_csv(clean / "inter.csv", dtype=str)
    table[column] = [form.format(text) for text in table[column]]
    other = write(tmp_path / "b")
    table.to_csv(other / "inter.csv", index=False)
    found = read_folder(other, True)
    assert found.fingerprint() == read_folder(clean, True).fingerprint()
    (note,) = found.notes
    for word in (f"10 values of {column}", "line 2", form.format(table[column][0])[-1]):
        assert word in note


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 20_000,
        '{"encoder": ' * 20_000,
        '{"encoder": null}',
        '{"encoder": []}',
        '{"encoder": {}}',
        '{"encoder": {"pretrained": false}}',
        '{"encoder": {"pretrained": false, "name": 7}}',
        '{"encoder": {"pretrained": true, "name": "x"}}',
        '{"encoder": {"pretrained": ' + "9" * 5000 + "}}",
        "\x00",
    ],
)
def test_metadata_that_a_hand_has_spoilt_says_nothing(tmp_path, content):
    folder = write(tmp_path / "a")
    (folder / "dataset.json").write_text(content)
    assert read_folder(folder, True).notes == ()


def test_metadata_of_random_weights_is_told_in_one_short_line(tmp_path):
    folder = write(tmp_path / "a")
    name = "\x1b[31mrandom:\n" + "x" * 1_000_000
    (folder / "dataset.json").write_text(
        json.dumps({"encoder": {"pretrained": False, "name": name}})
    )
    (note,) = read_folder(folder, True).notes
    assert "random: xxx" in note
    assert note.isprintable()
    assert len(note) < 500
    (folder / "dataset.json").unlink()
    os.mkfifo(folder / "dataset.json")
    assert read_folder(folder, True).notes == ()


def test_another_table_that_is_not_read_is_told(tmp_path):
    folder = write(tmp_path / "a")
    write(folder, rows=ROWS[:5], name="baby.inter")
    found = read_folder(folder, True)
    assert found.interactions.n_clients == 3
    assert found.notes == (f"{folder / 'inter.csv'} is read, baby.inter is ignored",)


def test_a_pipe_as_the_table_is_not_waited_for(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "inter.csv").unlink()
    os.mkfifo(folder / "inter.csv")
    refused(folder, "inter.csv: is a pipe")
    (folder / "inter.csv").unlink()
    (folder / "inter.csv").symlink_to("nowhere")
    refused(folder, "inter.csv: cannot be read")


def test_integer_features_become_floats(tmp_path):
    folder = write(tmp_path / "a", features=("image",))
    np.save(folder / "image_features.npy", np.arange(30).reshape(5, 6))
    assert read_folder(folder, True).catalogue.image.dtype == np.float32


def test_ku_reads_as_published(ku):
    data = read_folder(ku, needs_content=True)
    found = data.interactions
    assert (found.n_clients, found.n_items, len(found.items)) == (204, 560, 3076)
    assert "5 lines" in data.notes[0]
    warm = found.popularity[found.test] > 0
    assert warm.sum() == 116


@pytest.mark.parametrize("n_rows", [6, 7, 12, 100])
def test_rows_of_items_that_nobody_has_are_told(tmp_path, n_rows):
    data = read_folder(write(tmp_path / "shop", n_rows=n_rows), True)
    (note,) = data.notes
    assert f"the feature files have {n_rows} rows, and the largest item in inter.csv is 4" in note
    assert f"({n_rows - 5})" in note
    assert data.interactions.n_items == n_rows


@pytest.mark.parametrize("width", [6, 8, 512])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_transposed_features_are_refused(tmp_path, modality, width):
    folder = write(tmp_path / "shop", features=())
    np.save(folder / f"{modality}_features.npy", np.ones((width, 5), "f4"))
    refused(folder, f"{modality}_features.npy: found '({width}, 5)' for 5 items", "transposed")
    np.save(folder / f"{modality}_features.npy", np.ones((5, 5), "f4"))
    assert read_folder(folder, True).notes == ()
