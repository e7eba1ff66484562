import dataclasses
import re

from fedvlr_jax.report import plotting
from fedvlr_jax.report.chart import Axis, Chart, Panel, Series, stacked
from fedvlr_jax.report.sections import Section, page
from tests.report import browser

BAD = "<!--<script></script><b>\"'&"
LINES = [
    Series("one", [1, 10, 100], [3.0, 2.0, 1.0], ([2.5, 1.8, 0.9], [3.5, 2.3, 1.1]), 0),
    Series("two", [1, 10, 100], [1.0, 1.5, 2.0], None, 1, dash=1),
]
BANDS = [dataclasses.replace(line, kind="band") for line in LINES]


def of_lines(alternative, x, y, lines):
    return Chart(alternative, [Panel(x, y, lines)])


def drawn(text):
    """Titles and legends that stand in the drawn charts of a document."""
    return re.findall(r"<text[^>]*>(?:<tspan[^>]*>)?([^<]+)<", text)


def test_charts_are_drawn(tmp_path):
    charts = (
        of_lines("Time.", Axis("clients", log=True), Axis("time (s)", log=True), LINES),
        of_lines("Curves.", Axis("round"), Axis("loss (nats)", zero=True), BANDS),
        of_lines(
            "Shares.",
            Axis("whose", labels=["a", "b"]),
            Axis("share"),
            stacked({"image": [0.4, 0.3], "id": [0.6, 0.7]}),
        ),
    )
    path = tmp_path / "page.html"
    path.write_text(page("Charts", {}, [Section("One", "", charts=charts)]), encoding="utf-8")
    text, console = browser.opened(path, tmp_path / "browser")
    assert console == []
    assert text.count('class="trace scatter') == 2 + 3  # two lines; two lines and a band
    assert text.count('class="trace bars"') == 2
    shown = drawn(text)
    for label in (
        *("clients", "time (s)", "round", "loss (nats)", "whose", "share"),
        *("one", "two", "image"),
    ):
        assert label in shown, label
    # Intervals of the first chart: one for each point of one line.
    assert text.count('class="yerror"') == 3
    assert text.count('role="img" aria-label="Time."') == 1


def test_labels_stand_where_numbers_are_if_there_is_room():
    def labels(marks, log):
        panel = Panel(Axis("x", log=log, marks=marks), Axis("y"), LINES)
        return plotting.figure(panel).layout.xaxis.ticktext

    assert labels((100, 1000, 10000), log=True) == ("100", "1,000", "10,000")
    assert labels((1, 1000, 1_000_000), log=True) == ("1", "1,000", "1,000,000")
    assert labels((0, 0.25, 0.5), log=False) == ("0", "0.25", "0.5")
    assert labels((100, 110, 10000), log=True) is None
    assert labels((1, 10, 100), log=False) is None
    assert labels((7,), log=True) is None
    assert labels((), log=False) is None


def test_nothing_is_loaded_from_elsewhere():
    chart = of_lines("x", Axis("x"), Axis("y"), LINES)
    text = page("Charts", {}, [Section("One", "", charts=(chart,))])
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?http", text)
    assert text.count("plotly.js v") == 1
    assert "plotly.js v" not in page("No charts", {}, [Section("One", "")])


def test_names_are_text_and_end_no_script(tmp_path):
    lines = [Series(BAD, [1, 2], [1.0, 2.0])]
    chart = of_lines(BAD, Axis("x"), Axis("y"), lines)
    path = tmp_path / "page.html"
    path.write_text(page("Charts", {}, [Section("One", "", charts=(chart,))]), encoding="utf-8")
    text, console = browser.opened(path, tmp_path / "browser")
    assert console == []
    assert text.count('class="trace scatter') == 1
