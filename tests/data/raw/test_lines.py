"""Text files: line ends, encodings, and columns by their names."""

import json

import pytest

from fedvlr_jax.data.raw.lines import TextFile, column_names
from fedvlr_jax.errors import UserError
from tests.data.raw import published
from tests.data.raw.test_dirt import SHAPES, load, save
from tests.data.raw.test_sources import READERS

TABLES = [name for name, shape in SHAPES.items() if shape[3]]  # with a header
DAT = "movielens_1m"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_as_they_like(tmp_path, end, last):
    path = tmp_path / "log.txt"
    path.write_bytes(("a" + end + "ü\u2028b" + end + "c" + end * last).encode())
    file = TextFile(path)
    assert [line.rstrip("\r\n") for line in file.lines()] == ["a", "ü\u2028b", "c"]
    assert bool(file.notes) != last


def test_a_line_without_an_end_is_refused(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("a\n" + "x" * 17_000_000)
    with pytest.raises(UserError, match="line 2: longer than"):
        list(TextFile(path).lines())


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("spelled", ["{}", " {} ", '"{}"', "'{}'", "{}:token"])
def test_a_column_that_stands_twice_is_refused(tmp_path, source, place, spelled):
    published.SOURCES[source][1](tmp_path)
    name, _, between, _, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    column = rows[0][places[place]]
    for row in rows[1:]:
        row.append("5")
    rows[0].append(spelled.format(column))
    save(tmp_path / name, between, rows)
    with pytest.raises(UserError, match=f"line 1: column {column} appears 2 times, at places"):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize("source", ["movielens_small", "csv"])
def test_a_column_of_the_item_table_that_stands_twice_is_refused(tmp_path, source):
    published.SOURCES[source][1](tmp_path)
    path = tmp_path / SHAPES[source][1]
    between = ";" if source == "csv" else ","
    for place in SHAPES[source][5]:
        rows = load(path, between)
        before = path.read_bytes()
        for row in rows:
            row.append(row[place])
        save(path, between, rows)
        with pytest.raises(UserError, match=f"line 1: column {rows[0][place]} appears 2 times"):
            READERS[published.SOURCES[source][0]](tmp_path)
        path.write_bytes(before)


@pytest.mark.parametrize("source", ["amazon_2023", "amazon_2018"])
@pytest.mark.parametrize("row", [0, 5])
def test_a_name_twice_in_json_is_refused(tmp_path, source, row):
    published.SOURCES[source][1](tmp_path)
    name, items, _, _, names, wanted = SHAPES[source]
    for file, doubled in ((items, wanted), (name, names)):
        for one in doubled:
            lines = (tmp_path / file).read_text().splitlines()
            before = lines[row]
            value = json.dumps(json.loads(before)[one])
            lines[row] = before[:-1] + f', "{one}": {value}}}'
            (tmp_path / file).write_text("\n".join(lines) + "\n")
            with pytest.raises(UserError, match=f"line {row + 1}: {one} appears twice"):
                READERS["amazon"](tmp_path)
            lines[row] = before[:-1] + ', "other": {"a": 1, "a": 2}, "x": 1, "x": 2}'
            (tmp_path / file).write_text("\n".join(lines) + "\n")
            assert len(READERS["amazon"](tmp_path).log.user) == len(published.EVENTS)


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("above", ["# exported today", "sep=;", "a,b,c", "My report\n"])
def test_what_stands_above_the_header_is_told(tmp_path, source, above):
    published.SOURCES[source][1](tmp_path)
    path = tmp_path / SHAPES[source][0]
    path.write_text(f"{above}\n{path.read_text()}")
    line = 2 + above.count("\n")
    with pytest.raises(UserError, match=rf"line 1: no column .*; line {line} is the header"):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("row", [0, 3, -1])
def test_a_row_longer_than_the_header_is_told(tmp_path, source, row):
    published.SOURCES[source][1](tmp_path)
    name, _, between, *_ = SHAPES[source]
    rows = load(tmp_path / name, between)
    rows[1:][row].append("")
    save(tmp_path / name, between, rows)
    found = len(rows[0])
    with pytest.raises(
        UserError, match=rf"line \d+: {found + 1} cells, expected {found} as in the header"
    ):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("user_id", "user_id"),
        (" user_id\t", "user_id"),
        ('"user_id"', "user_id"),
        ("'user_id'", "user_id"),
        (' "user_id" ', "user_id"),
        ("user_id:token", "user_id"),
        ("user_id:token_seq", "user_id"),
        ("user_id:float", "user_id"),
        ("user_id:float_seq", "user_id"),
        ("user_id:token", "user_id:token"),
        ("user's", "user's"),
        ("a:b", "a:b"),
    ],
)
def test_what_a_column_may_be_called(cell, name):
    assert name in column_names(cell)
    assert "b" not in column_names(cell)
    assert "a" not in column_names(cell)


@pytest.mark.parametrize("source", ["movielens_small", DAT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("word", ["Amélie", "Señor Åse", "æøå", "«ß»", "Ünder ÿ"])
def test_movielens_is_utf_8_or_latin_1(tmp_path, source, encoding, word):
    """A file of the whole catalogue, whose first letter beyond ASCII may come late."""
    published.SOURCES[source][1](tmp_path)
    _, name, between, header, *_ = SHAPES[source]
    rows = load(tmp_path / name, between)
    for row in rows[header:]:
        row[1] = f"Film {row[0]} "
    rows[-1 - (source == "movielens_small")][1] += word
    rows[header:header] = [[f"x{k}", "x" * 100_000, ""] for k in range(12)]  # over a block
    save(tmp_path / name, between, rows)
    path = tmp_path / name
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    raw = READERS["movielens"](tmp_path)
    assert raw.titles["105"] == f"Film 105 {word}. Comedy, Drama"
    told = [note for note in raw.notes if "read as Latin-1" in note]
    assert len(told) == (encoding == "latin-1")


@pytest.mark.parametrize("source", ["movielens_small", DAT])
def test_a_file_in_two_encodings_is_refused(tmp_path, source):
    published.SOURCES[source][1](tmp_path)
    path = tmp_path / SHAPES[source][1]
    rows = load(path, SHAPES[source][2])
    save(path, SHAPES[source][2], rows)
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].decode().encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    first = 1 + SHAPES[source][3]
    with pytest.raises(UserError, match=f"line 4: is not UTF-8, and line {first} is, expected one"):
        READERS["movielens"](tmp_path)
    lines[3] = lines[3].replace("«".encode("latin-1"), b"\x93")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match="line 4: neither UTF-8 nor Latin-1"):
        READERS["movielens"](tmp_path)


@pytest.mark.parametrize(
    "source", [source for source in SHAPES if SHAPES[source][3] and SHAPES[source][2] != "json"]
)
@pytest.mark.parametrize("row", [3, 10, 22])
def test_files_that_were_joined_are_told(tmp_path, source, row):
    """The header once more, where the next file began."""
    published.SOURCES[source][1](tmp_path)
    name, _, between, _, _, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    save(tmp_path / name, between, [*rows[:row], rows[0], *rows[row:]])
    with pytest.raises(UserError, match=r"line \d+: repeats the header, expected it once"):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize("cell", ["9" * 5000, "-" + "1" * 4301, "[" + "7" * 10_000 + "]"])
def test_numbers_without_end_in_json_are_told_in_our_words(tmp_path, cell):
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": 1}\n{"user": ' + cell + "}\n")
    with pytest.raises(UserError, match=r"line 2: not JSON \(a number has too many digits\)"):
        list(TextFile(path).records())


def test_one_column_under_two_names_is_refused(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text("user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(UserError, match="line 1: user_id and user_id:token are one column"):
        list(TextFile(path).table("\t", ("user_id", "user_id:token")))


def test_a_long_cell_that_nobody_needs_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"user,text\nann,{'x' * 200_000}\n")
    assert list(TextFile(path).table(",", ("user",))) == [(2, ["ann"])]
