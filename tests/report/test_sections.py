import html
import re

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.report.sections import Section, page

NONE = "\N{EN DASH}"
TABLE = pd.DataFrame(
    {
        "recommender": ["fcf", "<b>&"],
        "rate": [0.0001, 0.03],
        "users": [10231, 5],
        "ndcg": [32.9412, 31.0],
        "ndcg low": [32.4977, None],
        "ndcg high": [33.3866, None],
        "p": [0.00041234, 1.0],
        "cold": [None, np.nan],
        "sd": ["a", None],
    }
)


def cells(text):
    """Rows of the only table, tags left out of its cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return [[html.unescape(re.sub("<.*?>", "", c)) for c in row] for row in found]


def test_tables_show_every_cell():
    text = page("x", {}, [Section("Accuracy", "", TABLE, best=("ndcg", "none"))])
    assert cells(text) == [
        ["recommender", "rate", "users", "ndcg", "p", "cold", "sd"],
        ["fcf", "0.0001", "10,231", "32.94 (32.50 to 33.39)", "0.0004", NONE, "a"],
        ["<b>&", "0.03", "5", "31.00", "1.0000", NONE, NONE],
    ]
    assert re.findall("<strong>(.*?)</strong>", text) == ["32.94"]
    assert "<caption><span>Accuracy; mean (95 % interval); the largest in bold" in text
    numbers = re.findall(r'<th scope="col" class="number">(\w+)<', text)
    assert numbers == ["rate", "users", "ndcg", "p", "cold"]


def test_what_stands_apart_is_not_the_best():
    apart = pd.Series([True, False])
    text = page("x", {}, [Section("Accuracy", "", TABLE, best=("ndcg",), apart=apart)])
    assert re.findall("<strong>(.*?)</strong>", text) == ["31.00"]
    assert "the largest in bold, references aside" in text


BOLD = [
    # values, groups, what is in bold
    ([1, 2, 3], "aaa", [2]),
    ([1, 2, 3], "abb", [2]),
    ([1, 2, 3], "abc", []),
    ([3, 2, 1], "aab", [0]),
    ([1, 1, 0], "aaa", [0, 1]),
    ([None, 2, 3], "aab", []),
    ([None, 2, 1], "aaa", [1]),
    ([None, None, 1], "aaa", []),
    ([5], "a", []),
    ([4, 3, 2, 1], "abab", [0, 1]),
    ([0.0, -1.0], "aa", [0]),
]


@pytest.mark.parametrize(("values", "groups", "bold"), BOLD)
def test_only_rows_that_compare_compete(values, groups, bold):
    table = pd.DataFrame({"clients": list(groups), "ndcg": values, "run": range(len(values))})
    section = Section("Accuracy", "", table, best=("ndcg",), among=("clients",))
    text = page("x", {}, [section])
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    assert [k for k, row in enumerate(rows) if "<strong>" in row] == bold
    assert "the largest in bold among rows with the same clients" in text


def test_intervals_stand_in_brackets():
    table = pd.DataFrame(
        {"n": [1, 2], "s": [5.0, 7.0], "s low": [None, 6.5], "s high": [None, 8.25]}
    )
    text = page("x", {}, [Section("Accuracy", "", table)])
    assert cells(text) == [["n", "s"], ["1", "5.00"], ["2", "7.00 (6.50 to 8.25)"]]
    assert "<caption><span>Accuracy; mean (95 % interval)</span>" in text


def test_everything_is_text_and_never_markup():
    bad = "<script>\"'&"
    table = pd.DataFrame({bad: [bad], f"{bad} 2": [1]})
    text = page(bad, {bad: bad}, [Section(bad, bad, table)])
    assert "<script>" not in text
    assert text.count("&lt;script&gt;&quot;&#x27;&amp;") == 12


def test_everything_is_inside_and_nothing_is_outside():
    facts = {"command": "python -m experiments.paper --data=data/KU", "data": "KU"}
    text = page("Study", facts, [Section("One", "a\n\nb", TABLE), Section("2", "")])
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert links == ["#part-1", "#part-2"]
    assert all(f'id="{link[1:]}"' in text for link in links)
    assert not re.search("http|url|@import", text)
    assert "<p>a</p>\n<p>b</p>" in text
    assert "<dt>command</dt><dd>python -m experiments.paper --data=data/KU</dd>" in text


def test_large_numbers_have_no_decimals():
    table = pd.DataFrame({"s": [13642.25, 4285.6], "s low": [1.5, None], "s high": [2e4, None]})
    assert cells(page("x", {}, [Section("x", "", table)]))[1:] == [
        ["13,642 (2 to 20,000)"],
        ["4,286"],
    ]


def test_an_empty_table_is_said():
    assert "nothing to show" in page("x", {}, [Section("Significance", "", pd.DataFrame([]))])
