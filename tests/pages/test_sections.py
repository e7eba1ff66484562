import base64
import html
import re

import numpy as np
import pandas as pd
from PIL import Image

from fedvlr_jax.pages.sections import Figure, Section, page

NONE = "\N{EN DASH}"
TABLE = pd.DataFrame(
    {
        "recommender": ["fcf", "<b>&"],
        "rate": [0.0001, 0.03],
        "users": [10231, 5],
        "ndcg": [32.9412, 31.0],
        "ndcg sd": [0.4444, None],
        "p": [0.00041234, 1.0],
        "cold": [None, np.nan],
        "sd": ["a", None],
    }
)


def cells(text):
    """Rows of the only table, tags left out of its cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    shown = [[re.sub(r'<span class="gap">.*?</span>', "", c) for c in row] for row in found]
    return [[html.unescape(re.sub("<.*?>", "", c)) for c in row] for row in shown]


def test_tables_show_every_cell():
    text = page("x", {}, [Section("Accuracy", "", TABLE, best=("ndcg", "none"))])
    assert cells(text) == [
        ["recommender", "rate", "users", "ndcg", "p", "cold", "sd"],
        ["fcf", "0.0001", "10,231", "32.94 ± 0.44", "0.0004", NONE, "a"],
        ["<b>&", "0.03", "5", "31.00", "1.0000", NONE, NONE],
    ]
    assert re.findall("<strong>(.*?)</strong>", text) == ["32.94"]
    assert "<caption><span>Accuracy; mean ± standard deviation; the largest in bold" in text
    numbers = re.findall(r'<th scope="col" class="number">(\w+)<', text)
    assert numbers == ["rate", "users", "ndcg", "p", "cold"]


def test_what_stands_apart_is_not_the_best():
    apart = pd.Series([True, False])
    text = page("x", {}, [Section("Accuracy", "", TABLE, best=("ndcg",), apart=apart)])
    assert re.findall("<strong>(.*?)</strong>", text) == ["31.00"]
    assert "the largest in bold, references aside" in text


def test_everything_is_text_and_never_markup():
    bad = "<script>\"'&"
    table = pd.DataFrame({bad: [bad], f"{bad} 2": [1]})
    text = page(bad, {bad: bad}, [Section(bad, bad, table)])
    assert "<script>" not in text
    assert text.count("&lt;script&gt;&quot;&#x27;&amp;") == 12


def test_pictures_are_inside_and_nothing_is_outside(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (300, 150), "red").save(path)
    figure = Figure(path, 'what "it" shows')
    facts = {"command": "python -m experiments.paper --data=data/KU", "data": "KU"}
    text = page(
        "Study", facts, [Section("One", "a\n\nb", figures=(figure, figure)), Section("2", "")]
    )
    found = re.findall(r'<img alt="(.*?)" width="192" height="96" .*base64,(.*?)">', text)
    assert (
        found == [("what &quot;it&quot; shows", base64.b64encode(path.read_bytes()).decode())] * 2
    )
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert [link for link in links if not link.startswith("data:")] == ["#part-1", "#part-2"]
    assert all(f'id="{link[1:]}"' in text for link in links if link.startswith("#"))
    assert not re.search("http|url|@import", text.replace("data:image", ""))
    assert "<p>a</p>\n<p>b</p>" in text
    assert "<dt>command</dt><dd>python -m experiments.paper --data=data/KU</dd>" in text


def test_an_empty_table_is_said():
    assert "nothing to show" in page("x", {}, [Section("Significance", "", pd.DataFrame([]))])
