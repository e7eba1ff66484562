"""Every source with all plausible dirt at once gives the data set of the clean files."""

import csv
import io
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedvlr_jax.data.raw.select import select
from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare.tables import write_tables
from tests.data.raw import published
from tests.data.raw.test_sources import READERS

MARKERS = ("", " ", "NA", "nan", "NaN", "NULL", "null", "None", "N/A", "n/a", r"\N", "<NA>", "#N/A")
SCRIPTS = (
    "var aPageStart = (new Date()).getTime();",
    "<script>alert(1)</script>",
    "&lt;style&gt;.a { color: red; }",
    "<br/>",
)
# By source: files of interactions and items, what stands between cells, whether there is a header,
# places of user, item and time, places of the item and its titles in the other file.
SHAPES = {
    "amazon_2023": ("All_Beauty.jsonl", "meta_All_Beauty.jsonl", "json", False,
                    ("user_id", "parent_asin", "timestamp"), ("parent_asin", "title")),
    "amazon_2018": ("All_Beauty_5.json", "meta_All_Beauty.json", "json", False,
                    ("reviewerID", "asin", "unixReviewTime"), ("asin", "title")),
    "ninerec": ("KU_pair.csv", "KU_item.csv", ",", False, (1, 0, 2), (0, 1, 2)),
    "movielens_small": ("ratings.csv", "movies.csv", ",", True, (0, 1, 3), (0, 1)),
    "movielens_1m": ("ratings.dat", "movies.dat", "::", False, (0, 1, 3), (0, 1)),
    "mmrec": ("baby.inter", None, "\t", True, (0, 1, 3), ()),
    "csv": ("orders.tsv", "goods.csv", "\t", True, (1, 2, 0), (0, 1)),
}  # fmt: skip
NUMBERED = ("movielens_small", "movielens_1m", "mmrec")


def load(path, between):
    text = path.read_text(encoding="latin-1" if path.suffix == ".dat" else "utf-8")
    if between == "json":
        return [json.loads(line) for line in text.splitlines()]
    if between == "::":
        return [line.split("::") for line in text.splitlines()]
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=between))


def save(path, between, rows, end="\n", mark=""):
    if between == "json":
        text = "".join(json.dumps(row) + end for row in rows)
    elif between == "::":
        text = "".join("::".join(row) + end for row in rows)
    else:
        into = io.StringIO(newline="")
        csv.writer(into, delimiter=between, lineterminator=end).writerows(rows)
        text = into.getvalue()
    path.write_bytes((mark + text).encode())


def line_of(source, row):
    """The line on which a row of interactions begins; one of `csv` goes over two lines."""
    return 1 + SHAPES[source][3] + row * (1 + (source == "csv"))


def tables(folder, source):
    """What a preparation writes, and the notes of the reader."""
    raw = READERS[published.SOURCES[source][0]](folder)
    chosen = select(raw.log, 5, 0)
    items = [raw.log.items[code] for code in chosen.item_code]
    out = folder / "out"
    out.mkdir()
    write_tables(out, raw, chosen, items, [None] * len(items))
    return {path.name: path.read_bytes() for path in out.iterdir()}, raw.notes


def spoil_items(folder, source, draw):
    """Titles in HTML, scripts for what has none, and rows without an item."""
    _, name, between, header, _, (key, *titles) = SHAPES[source]
    path = folder / name
    between = ";" if source == "csv" else between
    rows = load(path, between)
    for row in rows[header:]:
        for place in titles:
            row[place] = (
                row[place].replace("Thing", "<b>Thing</b>").replace("«", " &amp;laquo;").
                replace("»", "&raquo;")
            )  # fmt: skip
    thing_g = published.name_of(published.SOURCES[source][1](folder)[1], "g")
    save(path, between, rows)
    there = [row for row in rows if row[key] == thing_g]
    bad = dict(rows[-1]) if between == "json" else list(rows[-1])
    extra = [] if there else [bad]
    for row in there or extra:
        row[key] = thing_g
        for place in titles:
            row[place] = draw(st.sampled_from([*SCRIPTS, "NaN", "<NA>"]))
        if source.startswith("movielens"):
            row[2] = "(no genres listed)"
    nameless = dict(rows[-1]) if between == "json" else list(rows[-1])
    nameless[key] = draw(st.sampled_from(MARKERS))
    save(path, between, rows + extra + [nameless])


@pytest.mark.parametrize("source", published.SOURCES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_all_dirt_at_once_gives_the_clean_data_set(tmp_path_factory, source, data):
    draw = data.draw
    clean, dirty = (tmp_path_factory.mktemp(name) for name in ("clean", "dirty"))
    published.SOURCES[source][1](clean)
    published.SOURCES[source][1](dirty)
    expected, before = tables(clean, source)
    name, items, between, header, places, _ = SHAPES[source]
    if items:
        spoil_items(dirty, source, draw)
    path = dirty / name
    rows = load(path, between)
    head, rows = rows[:header], rows[header:]
    # Ids as a column of floats has them, and with space around them.
    respelled = {0: 0, 1: 0}
    for row in rows:
        for place in (0, 1):
            if source in NUMBERED and draw(st.booleans()):
                row[places[place]] += draw(st.sampled_from([".0", ".00", "."]))
                respelled[place] += 1
            elif source != "mmrec" and draw(st.booleans()):
                row[places[place]] = f" {row[places[place]]} "
    # Rows that miss something; nobody else may notice them.
    left_out, whole = [0, 0, 0], list(rows)
    for _ in range(draw(st.integers(1, 12))):
        place = draw(st.integers(0, 2))
        row = whole[draw(st.integers(0, len(whole) - 1))].copy()
        for cell in places:
            row[cell] = "someone new" if source != "csv" and cell != places[2] else row[cell]
        if source == "mmrec":
            row[places[1]] = "3"
        row[places[place]] = draw(st.sampled_from([*MARKERS, *([None] * (between == "json"))]))
        left_out[place] += 1
        rows.insert(draw(st.integers(0, len(rows))), row)
    for cells in head:
        cells[:] = [f" {cell} " for cell in cells]
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    save(path, between, head + rows, end, draw(st.sampled_from(["", "\ufeff"])))

    found, notes = tables(dirty, source)
    assert found == expected
    told = "\n".join(notes)
    for count in filter(None, left_out):
        assert re.search(rf"a missing value; {count} of {len(rows)} rows", told), told
    assert told.count("a missing value;") == sum(map(bool, left_out))
    for count in filter(None, respelled.values()):
        assert f"with a decimal point, as in {count} of {len(published.EVENTS)} rows" in told
    if items:
        assert "titles held HTML" in told
        assert "1 items have no id" in told
        assert "count as missing" in told
    assert not any("missing value" in note for note in before)


@pytest.mark.parametrize("source", published.SOURCES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_column_that_is_mostly_missing_is_the_wrong_one(tmp_path, source, place):
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    for row in rows[header:][: len(published.EVENTS) // 2 + 1]:
        row[places[place]] = "NULL"
    save(tmp_path / name, between, rows)
    with pytest.raises(
        UserError, match=rf"line {line_of(source, 0)}: .* is 'NULL', a missing value, as"
    ):
        READERS[published.SOURCES[source][0]](tmp_path)


UNITS = [(a, b) for a in range(4) for b in range(4) if a != b]


@pytest.mark.parametrize("source", published.SOURCES)
@pytest.mark.parametrize(("most", "few"), UNITS[:-1])
def test_times_of_two_units_are_refused(tmp_path, source, most, few):
    """Seconds, milliseconds, microseconds, and centuries of seconds in one column."""
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    units = (10**9, 10**12, 10**15, 15 * 10**6)
    for k, row in enumerate(rows[header:]):
        time = k + units[most if k < 18 else few]
        row[places[2]] = str(time) if between != "json" or k % 2 else time
    save(tmp_path / name, between, rows)
    if {most, few} == {0, 3}:  # June 1970 may stand beside 2001
        READERS[published.SOURCES[source][0]](tmp_path)
        return
    lines = [line_of(source, 0), line_of(source, 18)]
    if units[most] > units[few]:
        lines.reverse()
    with pytest.raises(UserError, match=rf"line {lines[1]}: .*times.*line {lines[0]} .*one unit"):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize("source", published.SOURCES)
@pytest.mark.parametrize("time", ["0", "-1", "1", "86400"])
def test_a_time_near_0_is_told(tmp_path, source, time):
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    for k, row in enumerate(rows[header:]):
        row[places[2]] = time if k in (4, 7) else str(1_600_000_000 + k)
    save(tmp_path / name, between, rows)
    raw = READERS[published.SOURCES[source][0]](tmp_path)
    (note,) = [note for note in raw.notes if "rows have such times" in note]
    assert f"line {line_of(source, 4)}: " in note
    assert f"is {time}, but most times" in note
    assert "2 of 22 rows" in note


@pytest.mark.parametrize("source", published.SOURCES)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "text",
    [
        *("1.23457E+11", "1,23457E+11", "1.2e+18", "1E+11", "12.3E+9", "1.23457E11", "-4.5e+20"),
        *("9007199254740993.0", "1234567890123456768.0", " 1.6E+12 "),
    ],
)
def test_ids_that_lost_digits_are_refused(tmp_path, source, place, text):
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    rows[header + 9][places[place]] = text
    save(tmp_path / name, between, rows)
    with pytest.raises(UserError, match=rf"line {line_of(source, 9)}: .*all of its digits"):
        READERS[published.SOURCES[source][0]](tmp_path)


@pytest.mark.parametrize("source", [name for name in published.SOURCES if name != "mmrec"])
@pytest.mark.parametrize("text", ["007", "12E3", "0x7", "7e2", "1.5.0", "B0.0", "-", "NAN1", "7-0"])
def test_other_ids_stay_as_they_are(tmp_path, source, text):
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, places, _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    rows[header][places[0]] = rows[header][places[1]] = text
    save(tmp_path / name, between, rows)
    log = READERS[published.SOURCES[source][0]](tmp_path).log
    assert log.users[0] == log.items[0] == text


@pytest.mark.parametrize("source", [name for name, shape in SHAPES.items() if shape[1]])
@pytest.mark.parametrize("known", range(3))
def test_an_item_table_about_other_items_is_refused(tmp_path, source, known):
    """Interactions with the items of the table, among so many with others."""
    published.SOURCES[source][1](tmp_path)
    name, items, between, header, places, (key, *_) = SHAPES[source]
    rows = load(tmp_path / name, between)
    others = []
    for k in range(29 if known < 2 else 8):
        for row in rows[header:]:
            others.append(row.copy())
            others[-1][places[1]] = f"x{k}"
    save(tmp_path / name, between, rows + others)
    between = ";" if source == "csv" else between
    if not known:
        table = load(tmp_path / items, between)
        for row in table[header:]:
            row[key] = f"Y{row[key]}"
        save(tmp_path / items, between, table)
    read = READERS[published.SOURCES[source][0]]
    if known < 2:
        words = "only .* of the 660 interactions" if known else "none of its rows is about an item"
        with pytest.raises(UserError, match=rf"{words}.* expected values of .* like .*order"):
            read(tmp_path)
        return
    notes = read(tmp_path).notes
    assert re.search(r"\d+ of the 198 interactions are about items that are not in it", notes[-1])


@pytest.mark.parametrize("source", ["ninerec", "csv"])
def test_swapped_columns_are_refused(tmp_path, source):
    published.SOURCES[source][1](tmp_path)
    name, _, between, header, (user, item, _), _ = SHAPES[source]
    rows = load(tmp_path / name, between)
    for row in rows[header:]:
        row[user], row[item] = row[item], row[user]
    save(tmp_path / name, between, rows)
    with pytest.raises(UserError, match="none of its rows is about an item"):
        READERS[source](tmp_path)
