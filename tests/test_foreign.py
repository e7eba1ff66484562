import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax import files
from fedvlr_jax.foreign import cell, from_cell, printable

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "\uff1d1+1",
    '=HYPERLINK("http://x","y")',
    "-",
    "+44 (album)",
    "'=1",
]
PLAIN = ["", "a title", "-5", "+3.5", "-1e-3", "'quoted'", "a = b", "5-3", "O'Hara", "-inf", "'-5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text(text):
    assert cell(text) == f"'{text}"
    assert from_cell(cell(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays_what_it_is(text):
    assert cell(text) == text
    assert from_cell(text) == text


@given(st.text(alphabet="'=+-@\t\r\n 1a.\uff1d"))
def test_every_text_comes_back(text):
    assert from_cell(cell(text)) == text
    assert cell(text)[:1] not in set("=@\t\r\n\uff1d")


def test_tables_hold_no_formulas_and_their_numbers_are_what_they_were(tmp_path):
    table = pd.DataFrame(
        {
            "title": FORMULAS,
            "number": range(-7, len(FORMULAS) - 7),
            "share": [-0.1 * k for k in range(len(FORMULAS))],
            "some": [None, *FORMULAS[1:]],
            "mixed": [-1.5, *FORMULAS[1:]],
        }
    )
    path = tmp_path / "table.csv"
    files.write_table(path, table)
    with open(path, encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [f"'{text}" for text in FORMULAS]
    read = pd.read_csv(path)
    assert read["number"].tolist() == table["number"].tolist()
    # As they are written: pandas 2 reads them with an error in the last place.
    assert [float(row[2]) for row in rows] == table["share"].tolist()
    assert rows[0][3:] == ["", "-1.5"]
    numbers = table[["number", "share"]]
    files.write_table(path, numbers)
    assert path.read_text() == numbers.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\rb"),
        ("a\bb", "a\\x08b"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "\\x7f"),
        ("\u202eabc", "\\u202eabc"),
        ("\u2066x", "\\u2066x"),
        ("\udcff", "\\udcff"),
        ("a\x00b", "a\\x00b"),
        ("caf\u00e9 \u6f22 \U0001f600\n\ttab", "caf\u00e9 \u6f22 \U0001f600\n\ttab"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")
