"""Tables without a header, and RecBole's atomic files, are the same log as a table with one."""

import numpy as np
import pytest

from fedvlr_jax.data.raw import csv_table as tables
from fedvlr_jax.data.raw import mmrec, ninerec
from fedvlr_jax.errors import UserError
from tests.data.raw import published

NAMED = tables.Columns("user", "item", "time")
EVENTS = [(f"u{user}", f"i{item}", time) for user, item, time in published.EVENTS]


def write(path, between, columns, head=None):
    """The events with `columns` in that order; x is anything else."""
    lines = [head] if head else []
    for user, item, time in EVENTS:
        cells = {"user": user, "item": item, "time": str(time)}
        lines.append(between.join(cells.get(name, "9") for name in columns))
    path.write_text("\n".join(lines) + "\n")
    return path


def assert_events(log):
    found = zip(log.user, log.item, log.time, strict=True)
    assert [(log.users[u], log.items[i], t) for u, i, t in found] == EVENTS


@pytest.mark.parametrize("between", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize(
    "columns",
    [
        ("user", "item", "time"),
        ("item", "user", "time"),
        ("time", "x", "item", "user"),
        ("x", "user", "item", "", "time"),
        ("user", "item", "rating", "time", ""),
    ],
)
def test_columns_of_a_file_without_a_header(tmp_path, between, columns):
    path = write(tmp_path / "log.csv", between, columns)
    assert_events(tables.read(path, tables.Columns("user", "item", "time", names=columns)).log)
    with pytest.raises(UserError, match=r"line 1: no column user.*--columns=user,item,time"):
        tables.read(path, NAMED)
    assert_events(tables.read(write(path, between, columns, between.join(columns)), NAMED).log)
    with pytest.raises(UserError, match=r"line 1: time is .*is a header, leave out --columns"):
        tables.read(path, tables.Columns("user", "item", "time", names=columns))


def test_another_number_of_cells_than_names(tmp_path):
    path = write(tmp_path / "log.csv", ",", ("user", "item", "x", "time"))
    with pytest.raises(UserError, match="line 1: expected 3 cells, one for each name in --columns"):
        tables.read(path, tables.Columns("user", "item", "time", names=("user", "item", "time")))
    path.write_text("u,i,1\nu,i,2,3\n")
    with pytest.raises(UserError, match="line 2: 4 cells, expected 3 as in --columns"):
        tables.read(path, tables.Columns("user", "item", "time", names=("user", "item", "time")))


def test_an_item_table_beside_a_file_without_a_header(tmp_path):
    path = write(tmp_path / "log.csv", ",", ("user", "item", "time"))
    (tmp_path / "goods.csv").write_text("item,name\nia,Thing\n" + "ib,\nic,&amp;\n")
    columns = tables.Columns("user", "item", "time", "name", names=("user", "item", "time"))
    assert tables.read(path, columns, tmp_path / "goods.csv").titles == {"ia": "Thing", "ic": "&"}


def test_pictures_that_are_markers_are_counted(tmp_path):
    path = write(tmp_path / "log.csv", ",", ("user", "item", "time"), "user,item,time")
    names = {"a": "a.jpg", "b": "NULL", "c": "nan", "d": "", "e": r"\N", "f": "N/A", "g": "g&.png"}
    rows = "".join(f"i{k},{name}\n" for k, name in names.items())
    (tmp_path / "goods.csv").write_text(f"item,photo\n{rows}ia,other.jpg\n")
    columns = tables.Columns("user", "item", "time", picture="photo")
    raw = tables.read(path, columns, tmp_path / "goods.csv")
    assert raw.titles is None
    assert raw.pictures == {"ia": "a.jpg", "ig": "g&.png"}
    (note,) = raw.notes
    assert "goods.csv, line 3: 4 names of pictures are markers of a missing value" in note


@pytest.mark.parametrize("log", ["{}", "{}.0", "{}."])
@pytest.mark.parametrize("goods", ["{}", "{}.0", "{}.00", " {}.0 "])
def test_ids_of_the_item_table_may_be_spelled_otherwise(tmp_path, log, goods):
    rows = "".join(f"u,{log.format(k)},{k}\n" for k in range(5))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}")
    rows = "".join(f"{goods.format(k)},Thing {k}\n" for k in range(5))
    (tmp_path / "goods.csv").write_text(f"item,name\n{rows}")
    columns = tables.Columns("user", "item", "time", "name")
    raw = tables.read(tmp_path / "log.csv", columns, tmp_path / "goods.csv")
    assert raw.titles == {str(k): f"Thing {k}" for k in range(5)}
    told = sum("with a decimal point" in note for note in raw.notes)
    assert told == ("." in log) + ("." in goods)


@pytest.mark.parametrize("types", ["", ":token"])
@pytest.mark.parametrize(("user", "item", "time"), [("user_id", "item_id", "timestamp"), "uiw"])
def test_recbole_atomic_files(tmp_path, types, user, item, time):
    head = f"{user}:token\t{item}:token\trating:float\t{time}:float"
    write(tmp_path / "ml.inter", "\t", ("user", "item", "x", "time"), head)
    (tmp_path / "ml.user").write_text(f"{user}:token\tage:token\nu1\t20\n")
    rows = "".join(f"i{k}\tThing {k}\t1995\n" for k in "abcdefg")
    (tmp_path / "ml.item").write_text(f"{item}:token\ttitle:token_seq\tyear:token\n{rows}")
    names = (f"{user}{types}", f"{item}{types}", time)
    raw = tables.read(tmp_path, tables.Columns(*names, title="title"), tmp_path / "ml.item")
    assert_events(raw.log)
    assert raw.titles == {f"i{k}": f"Thing {k}" for k in "abcdefg"}
    assert raw.notes == ()


def test_recbole_given_to_mmrec_is_pointed_elsewhere(tmp_path):
    published.mmrec(tmp_path)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    write(tmp_path / "baby.inter", "\t", ("user", "item", "x", "time"), head)
    with pytest.raises(
        UserError, match=r"baby.inter, line 1: the columns have RecBole's .*--source=csv"
    ):
        mmrec.read(tmp_path)


@pytest.mark.parametrize(("images", "texts"), [(7, 8), (8, 7), (9, 8), (8, 100), (1, 8)])
def test_feature_files_that_do_not_fit_are_refused(tmp_path, images, texts):
    published.mmrec(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.ones((images, 3), "f4"))
    np.save(tmp_path / "text_feat.npy", np.ones((texts, 4), "f4"))
    with pytest.raises(
        UserError, match=rf"image_feat.npy has {images} rows and text_feat.npy {texts}"
    ):
        mmrec.read(tmp_path)


@pytest.mark.parametrize("item", ["007", "7.5", "-0", "٣", "1e0"])
def test_rows_of_features_are_whole_numbers(tmp_path, item):
    published.mmrec(tmp_path)
    with open(tmp_path / "baby.inter", "a") as file:
        file.write(f"1\t{item}\t1.0\t5\t0\n")
    line = len(published.EVENTS) + 2
    with pytest.raises(UserError, match=rf"line {line}: itemID is '{item}', expected a whole"):
        mmrec.read(tmp_path)


@pytest.mark.parametrize("more", [[], ["tag"], ["tag", "12"], ["", "x", "y"]])
def test_ninerec_texts_with_more_columns(tmp_path, more):
    published.ninerec(tmp_path)
    end = "".join(f",{cell}" for cell in more)
    rows = "".join(f"v{k},标题,Title {k}{end}\n" for k in "abcdef")
    (tmp_path / "KU_item.csv").write_text(f"{rows}vg,标题,{end}\n")
    titles = {f"v{k}": f"Title {k}" for k in "abcdef"} | {"vg": "标题"}
    assert ninerec.read(tmp_path).titles == titles
    with open(tmp_path / "KU_item.csv", "a") as file:
        file.write(f"vh,标题,One, two{end}\n")
    with pytest.raises(UserError, match=f"line 8: {4 + len(more)} cells, expected item, title, E"):
        ninerec.read(tmp_path)


@pytest.mark.parametrize("width", [8, 64, 512])
def test_transposed_features_are_refused(tmp_path, width):
    published.mmrec(tmp_path)
    (tmp_path / "text_feat.npy").unlink()
    np.save(tmp_path / "image_feat.npy", np.ones((width, 7), "f4"))
    with pytest.raises(UserError, match=rf"image_feat.npy: found '\({width}, 7\)' for 7 items"):
        mmrec.read(tmp_path)
