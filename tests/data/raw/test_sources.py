"""Every source from its published format to a log; every kind of damage to one sentence."""

import gzip
import json
import shutil

import numpy as np
import pytest

from fedvlr_jax.data.raw import amazon, mmrec, movielens, ninerec
from fedvlr_jax.data.raw import csv_table as tables
from fedvlr_jax.errors import UserError
from tests.data.raw import published

COLUMNS = tables.Columns("buyer", "what", "when", "name", "photo")


def _table(folder):
    return tables.read(folder, COLUMNS, folder / "goods.csv")


READERS = {
    "amazon": amazon.read,
    "ninerec": ninerec.read,
    "movielens": movielens.read,
    "mmrec": mmrec.read,
    "csv": _table,
}


@pytest.fixture(params=published.SOURCES)
def source(request):
    return request.param


def made(folder, source, gz=False):
    name, write = published.SOURCES[source]
    return READERS[name], write(folder, gz)


def refused(read, folder, *words):
    with pytest.raises(UserError) as caught:
        read(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert str(word) in sentence, sentence
    return sentence


@pytest.mark.parametrize("gz", [False, True])
def test_reads_the_published_format(tmp_path, source, gz):
    read, (user_name, item_name) = made(tmp_path, source, gz)
    raw = read(tmp_path)
    found = [
        (raw.log.users[u], raw.log.items[i])
        for u, i in zip(raw.log.user, raw.log.item, strict=True)
    ]
    expected = [
        (published.name_of(user_name, u), published.name_of(item_name, i))
        for u, i, _ in published.EVENTS
    ]
    assert found == expected
    np.testing.assert_array_equal(
        np.argsort(raw.log.time, kind="stable"),
        np.argsort([time for _, _, time in published.EVENTS], kind="stable"),
    )
    # Thing g is in the log; the item table has no row about it where none is published.
    without_g = ("ninerec", "amazon_2018", "movielens_1m", "csv")
    told = ["1 of the 22 interactions are about items that are not in it"] * (source in without_g)
    if source == "movielens_1m":
        told.insert(0, "is not UTF-8; the file is read as Latin-1")
    assert len(raw.notes) == len(told)
    assert all(words in note for words, note in zip(told, raw.notes, strict=True))
    if source == "mmrec":
        assert raw.titles is None
        for modality, width in (("image", 6), ("text", 5)):
            rows = np.load(tmp_path / f"{modality}_feat.npy")
            np.testing.assert_array_equal(
                raw.features[modality], rows[[int(i) for i in raw.log.items]].astype("f4")
            )
            assert raw.features[modality].shape == (7, width)
        return
    titles = {published.name_of(item_name, k): title for k, title in published.TITLES.items()}
    if source.startswith("movielens"):
        titles = {item: f"{title}. Comedy, Drama" for item, title in titles.items()}
    assert raw.titles == titles


def test_the_items_table_names_pictures(tmp_path):
    read, _ = made(tmp_path, "csv")
    assert read(tmp_path).pictures == {f"i{k}": f"{k}/front.png" for k in "abcdef"}


def _interactions(folder, source):
    """The file of interactions, and its bytes once unpacked."""
    patterns = {
        "amazon_2023": "All*", "amazon_2018": "All*", "ninerec": "*_pair*",
        "movielens_small": "ratings*", "movielens_1m": "ratings*", "mmrec": "*.inter*",
        "csv": "orders*",
    }  # fmt: skip
    (path,) = folder.glob(patterns[source])
    return path


def test_an_empty_file_is_refused(tmp_path, source):
    read, _ = made(tmp_path, source)
    path = _interactions(tmp_path, source)
    path.write_bytes(b"")
    refused(read, tmp_path, path, "empty")


def test_a_gzip_file_cut_off_is_refused(tmp_path, source):
    read, _ = made(tmp_path, source, gz=True)
    path = _interactions(tmp_path, source)
    path.write_bytes(path.read_bytes()[:-12])
    refused(read, tmp_path, f"{path}, line", "cut off")


def test_a_damaged_gzip_file_is_refused(tmp_path, source):
    read, _ = made(tmp_path, source, gz=True)
    path = _interactions(tmp_path, source)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    whole[len(whole) // 2 + 1] ^= 255
    path.write_bytes(whole)
    refused(read, tmp_path, f"{path}, line")


def test_a_file_cut_in_a_line_is_refused(tmp_path, source):
    read, _ = made(tmp_path, source)
    path = _interactions(tmp_path, source)
    whole = path.read_bytes().rstrip(b"\n")
    last = whole.rfind(b"\n") + 1
    line = 1 + whole[:last].count(b"\n")
    separator = {"csv": b"\t", "mmrec": b"\t", "movielens_1m": b"::"}.get(source, b",")
    cut = whole.rfind(separator)
    path.write_bytes(whole[:cut])
    # A quoted cell of the table begins on an earlier line than it ends.
    begun = {"csv": line - 1}.get(source, line)
    refused(read, tmp_path, f"{path}, line {begun}:")


def test_another_encoding_is_refused(tmp_path, source):
    read, _ = made(tmp_path, source)
    path = _interactions(tmp_path, source)
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    lines[2] = "ü" + lines[2]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    if source.startswith("movielens"):
        raw = read(tmp_path)
        assert f"{path}, line 3: is not UTF-8; the file is read as Latin-1" in raw.notes
        assert raw.log.users[-1].startswith("ü") or "ü1" in raw.log.users
    else:
        refused(read, tmp_path, f"{path}, line 3:", "0xfc", "UTF-8")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path.write_bytes(text.encode(encoding))
        refused(read, tmp_path, f"{path}, line 1:", "UTF-8")


@pytest.mark.parametrize("name", ["amazon_2023", "amazon_2018"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'user_id': 'A'}", "not JSON"),
        ("[1, 2]", "a JSON list"),
        ("3", "a JSON int"),
        ('{"user_id": "A", "reviewerID": "A"}', "no field"),
        ("[" * 100000, "not JSON"),
    ],
)
def test_lines_that_are_not_reviews(tmp_path, name, line, words):
    read, _ = made(tmp_path, name)
    path = _interactions(tmp_path, name)
    with open(path, "a") as file:
        file.write(line + "\n")
    refused(read, tmp_path, f"{path}, line {len(published.EVENTS) + 1}:", words)


def test_titles_are_one_plain_line(tmp_path):
    made(tmp_path, "amazon_2023")
    (tmp_path / "meta_All_Beauty.jsonl").write_text(
        '{"parent_asin": "B00a", "title": "half \\ud83d"}\n'
        '{"parent_asin": "B00b", "title": "one\\rtwo"}\n{"parent_asin": "B00c", "title": "\\n"}\n'
    )
    assert amazon.read(tmp_path).titles == {"B00a": "half", "B00b": "one two"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("timestamp", "9007199254740993", "expected a number below 2^53"),
        ("timestamp", "1e300", "expected a number below 2^53"),
        ("timestamp", "1" * 5000, "not JSON"),
        ("user_id", '"\\ud800u1"', "user_id is '\\ud800u1', expected an id"),
        ("user_id", '"a\\rb"', "expected an id"),
        ("timestamp", '"soon"', "timestamp is 'soon', expected a number"),
        ("timestamp", "null", "timestamp is None"),
        ("timestamp", "NaN", "timestamp is 'NaN'"),
        ("timestamp", "1" + "0" * 400, "timestamp is 1"),
        ("timestamp", "true", "timestamp is True"),
        ("user_id", '""', "user_id is ''"),
        ("parent_asin", "[]", "parent_asin is []"),
    ],
)
def test_fields_that_are_not_what_they_should_be(tmp_path, field, value, words):
    record = {"user_id": '"A"', "parent_asin": '"B"', "timestamp": "1"} | {field: value}
    body = ", ".join(f'"{k}": {v}' for k, v in record.items())
    (tmp_path / "Toys.jsonl").write_text(f"{{{body}}}\n")
    (tmp_path / "meta_Toys.jsonl").write_text('{"parent_asin": "B", "title": "T"}\n')
    refused(amazon.read, tmp_path, "Toys.jsonl, line 1:", words)


def test_the_first_review_decides_the_edition(tmp_path):
    made(tmp_path, "amazon_2023")
    published.amazon_2018(tmp_path)
    (tmp_path / "meta_All_Beauty.json").unlink()
    refused(amazon.read, tmp_path, "All_Beauty_5.json, line", "field")


@pytest.mark.parametrize(
    ("source", "missing", "words"),
    [
        ("amazon_2023", "meta_All_Beauty.jsonl", "meta_"),
        ("amazon_2023", "All_Beauty.jsonl", "no reviews"),
        ("ninerec", "KU_pair.csv", "*_pair.csv"),
        ("ninerec", "KU_item.csv", "*_item.csv"),
        ("movielens_small", "ratings.csv", "ratings.csv or ratings.dat"),
        ("movielens_1m", "movies.dat", "movies.dat"),
        ("mmrec", "baby.inter", "*.inter"),
    ],
)
def test_missing_files_are_named(tmp_path, source, missing, words):
    read, _ = made(tmp_path, source)
    (tmp_path / missing).unlink()
    refused(read, tmp_path, tmp_path, words)


def test_no_folder(tmp_path, source):
    read = READERS[published.SOURCES[source][0]]
    refused(read, tmp_path / "no", "--raw=", "no such")


def test_two_tables_are_one_too_many(tmp_path):
    made(tmp_path, "ninerec")
    shutil.copy(tmp_path / "KU_pair.csv", tmp_path / "QB_pair.csv")
    refused(ninerec.read, tmp_path, "KU_pair.csv, QB_pair.csv")
    other = tmp_path / "csv"
    other.mkdir()
    published.table(other)
    shutil.copy(other / "orders.tsv", other / "more.csv")
    refused(_table, other, "more.csv, orders.tsv")
    found = tables.read(other / "orders.tsv", tables.Columns("buyer", "what", "when"))
    assert len(found.log.user) == len(published.EVENTS)
    assert found.titles is None


def test_a_header_where_there_should_be_none(tmp_path):
    made(tmp_path, "ninerec")
    path = tmp_path / "KU_pair.csv"
    path.write_text("item_id,user_id,timestamp\n" + path.read_text())
    refused(ninerec.read, tmp_path, "line 1", "header")


def test_english_titles_come_first_and_chinese_ones_serve(tmp_path):
    made(tmp_path, "ninerec")
    (tmp_path / "KU_item.csv").write_text("va,标题,A title\nvb,只有中文\nvc,标题,\n")
    assert ninerec.read(tmp_path).titles == {"va": "A title", "vb": "只有中文", "vc": "标题"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1\t9\t1.0\t5\t0", "itemID is '9', expected a whole number below the 8 feature rows"),
        ("1\t-1\t1.0\t5\t0", "itemID is '-1'"),
        ("1\tx\t1.0\t5\t0", "itemID is 'x'"),
        ("1\t1\t1.0\tnow\t0", "timestamp is 'now'"),
        ("1\t1\t1.0\t5", "4 cells, expected 5 as in the header"),
    ],
)
def test_rows_that_mmrec_cannot_have(tmp_path, row, words):
    made(tmp_path, "mmrec")
    path = tmp_path / "baby.inter"
    path.write_text(path.read_text() + row + "\n")
    refused(mmrec.read, tmp_path, f"line {len(published.EVENTS) + 2}:", words)


def test_mmrec_without_features(tmp_path):
    made(tmp_path, "mmrec")
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    refused(mmrec.read, tmp_path, "image_feat.npy")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("buyer,what\nu,i\n", "line 1: no column when, found buyer, what"),
        ("buyer,what,when\n", "no row below the header"),
        ("buyer,what,when\nu,i,yesterday\n", "line 2: when is 'yesterday', expected a number or"),
        ("buyer,what,when\nu,i,2026-02-30\n", "line 2: when is '2026-02-30'"),
        ("buyer,what,when\nu,,3\n", "line 2: what is ''"),
        ('buyer,what,when\nu,"i,3\nu,i,3\n', "line 2: a quoted cell begins here"),
        ("buyer,what,when\nu,i,3,4\n", "line 2: 4 cells"),
        (f"buyer,what,when\nu,{'x' * 200000},3\n", "line 2: what is 'x"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, words):
    (tmp_path / "log.csv").write_text(text)
    refused(lambda folder: tables.read(folder, COLUMNS), tmp_path, "log.csv", words)


@pytest.mark.parametrize(
    "times",
    [
        ("1767225600", "1.7672256e9"),
        ("2026-01-01", "2026-01-01 00:00:00", "2026-01-01T00:00"),
        ("2026-01-01T01:00:00+01:00", "2026-01-01 00:00:00Z", "20251231T2300-0100"),
    ],
)
def test_times_may_be_numbers_or_dates(tmp_path, times):
    rows = "".join(f"u;i{k};{time}\n\n" for k, time in enumerate(times))
    (tmp_path / "log.csv").write_text("buyer;what;when\n" + rows)
    log = tables.read(tmp_path, COLUMNS).log
    np.testing.assert_array_equal(log.time, [1767225600.0] * len(times))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("5", "2026-01-01", "a date without a time zone, expected a number"),
        ("2026-01-01", "5", "a number, expected a date without a time zone"),
        ("2026-01-01", "2026-01-01 00:00Z", "a date with a time zone, expected a date without"),
    ],
)
def test_times_are_of_one_kind(tmp_path, first, second, words):
    (tmp_path / "log.csv").write_text(f"buyer,what,when\nu,i,{first}\nu,j,{second}\n")
    refused(lambda folder: tables.read(folder, COLUMNS), tmp_path, "log.csv, line 3:", words)


def test_an_items_table_about_other_items(tmp_path):
    read, _ = made(tmp_path, "csv")
    (tmp_path / "goods.csv").write_text("what,name,photo\nI1,A,a.png\n")
    refused(read, tmp_path, "goods.csv: none of its rows is about an item of", "like if")


def test_a_last_line_without_an_end_is_told(tmp_path):
    made(tmp_path, "ninerec")
    path = tmp_path / "KU_pair.csv"
    path.write_text(path.read_text().rstrip("\n"))
    note, _ = ninerec.read(tmp_path).notes
    assert f"{path}, line {len(published.EVENTS)}" in note
    assert "cut off" in note


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "log.csv").write_text("buyer,what,when\nu,i,3\n", encoding="utf-8-sig")
    assert tables.read(tmp_path, COLUMNS).log.users == ["u"]

    made(tmp_path, "movielens_1m")
    path = tmp_path / "ratings.dat"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert movielens.read(tmp_path).log.users == ["1", "2", "3", "4"]


def test_folders_and_loops_are_no_files(tmp_path):
    made(tmp_path, "csv")
    (tmp_path / "more.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert len(_table(tmp_path).log.users) == 4
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "KU_pair.csv").mkdir()
    refused(ninerec.read, tmp_path / "x", "no NineRec's interactions there")


def test_something_else_called_gz_is_read_as_what_it_is(tmp_path):
    made(tmp_path, "ninerec", gz=True)
    path = tmp_path / "KU_pair.csv.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(ninerec.read(tmp_path).log.user) == len(published.EVENTS)


@pytest.mark.parametrize("title", [True, ["Lamp"], {"en": "Lamp"}, [], {}, [None], False])
@pytest.mark.parametrize("source", ["amazon_2023", "amazon_2018"])
def test_titles_that_are_no_texts_are_told(tmp_path, source, title):
    published.SOURCES[source][1](tmp_path)
    (path,) = tmp_path.glob("meta*")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:3]:
        row["title"] = title
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = amazon.read(tmp_path)
    assert any("line 2: 2 titles are not text and count as missing" in note for note in raw.notes)
    assert len(raw.titles) == 4
