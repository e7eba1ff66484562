"""Tables as text: every cell in its column, or the file and the line told."""

import csv
import io
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data.table import read_table
from fedvlr_jax.errors import UserError

HEADER = b"userID,itemID,split_label\n"
NEEDED = ("userID", "itemID", "split_label")
CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=8)


def read(tmp_path, content, separator=",", needed=NEEDED):
    path = tmp_path / "inter.csv"
    path.write_bytes(content)
    return read_table(path, separator, needed)


def refused(tmp_path, content, *words, **settings):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    for word in (str(tmp_path / "inter.csv"), *words):
        assert word in sentence, sentence


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",\t"))
def test_every_cell_is_read_as_it_was_written(tmp_path_factory, rows, separator):
    # The last cell is filled, so that no row counts as one of the blank ones at the end.
    rows = [(a, b, c or "x") for a, b, c in rows]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator).writerows([NEEDED, *rows])
    found = read(tmp_path_factory.mktemp("table"), file.getvalue().encode(), separator)
    assert found.cells.to_numpy().tolist() == [list(row) for row in rows]
    assert list(found.cells) == list(NEEDED)


@given(st.lists(st.lists(st.sampled_from(["0", "12", "", "é"]), min_size=3, max_size=3)))
def test_the_quick_way_and_the_strict_one_agree(tmp_path_factory, rows):
    text = "\n".join(",".join(row) for row in [list(NEEDED), *rows, ["1", "2", "3"]])
    folder = tmp_path_factory.mktemp("table")
    quick = read(folder, text.encode())
    strict = read(folder, text.replace("userID", '"userID"').encode())
    assert quick.cells.to_numpy().tolist() == strict.cells.to_numpy().tolist()
    assert quick.lines.tolist() == strict.lines.tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "{end}", "{end}{end}", "{end},,{end},,"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_of_every_system_are_read(tmp_path, end, last, mark):
    text = end.join(["userID, itemID ,split_label", "0,4,0", '"1",5,1']) + last.format(end=end)
    for content in (text, text.replace('"', "")):
        found = read(tmp_path, mark + content.encode())
        assert found.cells.to_numpy().tolist() == [["0", "4", "0"], ["1", "5", "1"]]
        assert list(found.cells) == list(NEEDED)
        assert found.lines.tolist() == [2, 3]


@pytest.mark.parametrize("quote", [b"", b'"q"'], ids=["plain", "quoted"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER + b"0,1,0\n0,1,0,\n", ["line 3", "4 cells", "expected 3 as in the header"]),
        (HEADER + b"0,1,0,7\n0,1,0,7\n", ["line 2", "4 cells", "expected 3 as in the header"]),
        (HEADER + b"0,1,0\n4,0\n0,1,0\n", ["line 3", "2 cells", "expected 3 as in the header"]),
        (HEADER + b"0,1,0\n4\n", ["line 3", "1 cell, "]),
        (HEADER + b"0,1,0\n\n0,1,1\n", ["line 3", "blank"]),
        (HEADER + b"0,1,0\n\n\n0,1\n", ["line 3", "blank"]),
        (HEADER.replace(b"\n", b"\r\r\n") + b"0,1,0\r\r\n", ["line 2", "blank"]),
        (b"# exported today\n" + HEADER + b"0,1,0\n", ["line 1", "'# exported today'"]),
        (b"\n" + HEADER + b"0,1,0\n", ["line 1", "no column userID"]),
        (HEADER.replace(b",", b";") + b"0;1;0\n", ["line 1", "'userID;itemID;split_label'"]),
        (b"0,1,0\n0,2,0\n", ["line 1", "no column userID", "'0, 1, 0'"]),
        (b"userID,itemID,split_label,split_label\n0,1,0,0\n", ["line 1", "'split_label'", "2"]),
        (b"userID,itemID, userID,split_label\n0,1,0,0\n", ["line 1", "'userID'", "2 times"]),
        (b"a,userID,itemID,a ,split_label, a\n0,1,0,0,0,0\n", ["line 1", "'a'", "3 times"]),
        (HEADER + b"0,1,0\n0,\xe9,0\n", ["line 3", "0xe9", "column 3", "UTF-8"]),
        (HEADER.replace(b"itemID", b"item\xe9") + b"0,1,0\n", ["line 1", "no column itemID"]),
        (HEADER + b"0,1,0\n0,\0,0\n", ["line 3", "NUL"]),
        ((HEADER + b"0,1,0\n").decode().encode("utf-16"), ["line 1", "UTF-16"]),
        (HEADER + b"0,1,0\n0," + b"1" * 3_000_000 + b",0\n", ["line 3", "1,000,000 bytes"]),
        (b"," * 3_000_000 + b"\n", ["line 1", "1,000,000 bytes"]),
        (HEADER + b"0,1,0\n" + b"," * 900_000 + b"\n", ["line 3", "900001 cells"]),
        (b"x" * 200_000 + b"\n0,1,0\n", ["line 1"]),
    ],
)
def test_what_is_no_table_is_refused_by_line(tmp_path, content, words, quote):
    refused(tmp_path, content, *words)
    if quote and content.startswith(HEADER):
        # The same below a header with quotes, which is read the strict way.
        refused(tmp_path, content.replace(b"userID", b'"userID"', 1), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'0,1,0\n0,"1,0\n0,1,0\n', ["line 3", "begins here and does not end"]),
        (b'0,1,0\n0,"1"7,0\n0,1,0\n', ["line 3", "expected after"]),
        (b'0,1,"two\nlines"\n0,1\n', ["line 4", "2 cells"]),
        (b'0,1,"two\r\nlines"\r\n0,1,2,3\r\n', ["line 4", "4 cells"]),
        (b'0,1,0\n"0",\xff,1\n', ["line 3", "0xff", "column 5"]),
    ],
)
def test_quotes_are_read_strictly(tmp_path, content, words):
    refused(tmp_path, HEADER + content, *words)


def test_empty_files_and_headers_alone(tmp_path):
    for content in (b"", b"\n", b" \r\n\r\n", b"\xef\xbb\xbf"):
        refused(tmp_path, content, "the file is empty")
    for content in (HEADER, HEADER + b"\n\n", HEADER + b",,\n,,\n"):
        assert len(read(tmp_path, content).lines) == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("7.0", 7),
        ("7.", 7),
        (" 7 ", 7),
        ("007", 7),
        ("+7", 7),
        ("2147483646.00", 2**31 - 2),
    ],
)
def test_whole_numbers_are_exact_and_told_where_they_are_written_otherwise(tmp_path, text, number):
    table = read(tmp_path, HEADER + b"1,1,1\n" + f"1,{text},1\n1,{text},1\n".encode())
    found, notes = table.whole_numbers("itemID")
    assert found.tolist() == [1, number, number]
    if text == "7":
        assert notes == []
    else:
        (note,) = notes
        for word in ("2 values of itemID", repr(text), "line 3", f"read as {number}"):
            assert word in note


@pytest.mark.parametrize(
    "text",
    [
        *("", "NA", "NaN", "null", "None", r"\N", "<NA>", "N/A", "#N/A", "inf", "-1", "-0", "1.5"),
        *("1e3", "1.2E+11", "1E+05", "0x10", "1_000", "٣", "³", "7.0.0", ".", "2147483647", "7,0"),
        *("9" * 5000, "1" * 200 + ".0", "seven", "\x1b[31m7", "7\u202e", "0.0000000001"),
    ],
)
def test_what_is_no_whole_number_is_refused_by_line(tmp_path, text):
    quoted = f'"{text}"' if "," in text else text
    table = read(tmp_path, HEADER + b"1,1,1\n" + f"1,{quoted},1\n".encode())
    with pytest.raises(UserError) as caught:
        table.whole_numbers("itemID")
    sentence = str(caught.value)
    assert f"{table.path}, line 3: itemID is " in sentence
    assert sentence.isprintable()
    assert len(sentence) < 300
    marked = text in ("NA", "NaN", "null", "None", r"\N", "<NA>", "N/A", "#N/A")
    assert ("a marker of a missing value" in sentence) == marked


def test_enormous_lines_cost_little(tmp_path):
    begun = time.perf_counter()
    refused(tmp_path, HEADER + b"0,1,0\n" + b"7" * 50_000_000, "line 3", "1,000,000 bytes")
    assert time.perf_counter() - begun < 5


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "inter.csv")
    with pytest.raises(UserError, match="is a pipe, expected a plain file"):
        read_table(tmp_path / "inter.csv", ",", NEEDED)
