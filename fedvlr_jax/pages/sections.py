"""Results as one HTML page that needs nothing else: facts, tables, pictures, charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from PIL import Image

from fedvlr_jax import drawing
from fedvlr_jax.pages import shell
from fedvlr_jax.pages.charts import STYLE, Chart, fragment, library

_INCH = 96  # pixels of CSS
# What ends the name of a column that is shown beside another one, and what the two are.
_BESIDE = {
    " sd": "mean ± standard deviation",
    " ci": "mean ± half the width of the 95 % interval (Student's t)",
}
# What ends the names of two columns that are shown in brackets beside one, and what they are.
_ENDS = (" low", " high")
_INTERVAL = "mean (95 % interval by Student's t; of two runs their range)"
_NONE = "\N{EN DASH}"
_FEW_DIGITS = 3  # that a setting or a count has, significant ones
_MOST_DECIMALS = 4

_STYLE = """
main { max-width: 72rem; }
h2 { font-size: 1.25rem; scroll-margin-top: 1rem; }
p + p { margin-top: .5rem; }
dl { margin: 1rem 0 0; padding: .75rem 1rem; display: grid; gap: .35rem 1.25rem;
  grid-template-columns: max-content minmax(0, 1fr); background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; }
dt { color: var(--soft); }
dd { margin: 0; font: .9rem/1.6 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
nav ol { margin: 1rem 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .35rem 1.25rem; }
a { color: var(--bar); }
.scroll { margin-top: .75rem; width: fit-content; max-width: 100%; overflow-x: auto;
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding: .6rem .75rem; }
caption span { position: sticky; left: .75rem; display: inline-block;
  max-width: calc(100vw - 4rem); }
table { font-size: .9rem; }
th, td { padding: .35rem .75rem; text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--card); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.gap { visibility: hidden; }
figure { margin: 0; padding: .75rem; background: #ffffff; }
figure img { display: block; height: auto; margin: 0 auto; width: var(--width);
  max-width: 100%; }
@media (max-width: 45rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .5rem; }
  figure { width: max-content; min-width: 100%; }
  figure img { max-width: 40rem; }
}
"""


@dataclass(frozen=True)
class Figure:
    """A PNG file, and what it shows, in words for those who do not see it."""

    path: Path
    alternative: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: one line.
        text: plain text; blank lines part paragraphs.
        table: a column `X sd` or `X ci`, a standard deviation or half an interval, is shown
            beside the mean `X`, in one cell, and so are `X low` and `X high`, an interval's ends.
        figures: below the table.
        charts: below the figures.
        best: columns whose largest number is in bold.
        apart: which rows of the table do not compete for that, None for all do.
        among: columns; only rows that are equal in them compete with one another. Alone, a row
            is not in bold.
    """

    title: str
    text: str
    table: pd.DataFrame | None = None
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    best: tuple[str, ...] = ()
    apart: pd.Series | None = None
    among: tuple[str, ...] = ()


def page(title: str, facts: dict[str, str], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: its heading.
        facts: how the study was made: the command, versions, the data set.
        sections: in order; the table of contents lists them.

    Raises:
        OSError: a picture cannot be read.
    """
    named = list(enumerate(sections, 1))
    rows = "\n".join(
        f"<dt>{shell.text(name)}</dt><dd>{shell.text(value)}</dd>" for name, value in facts.items()
    )
    contents = "\n".join(
        f'<li><a href="#part-{number}">{shell.text(section.title)}</a></li>'
        for number, section in named
    )
    parts = "\n".join(_section(number, section) for number, section in named)
    if any(section.charts for section in sections):
        parts += f"\n{library()}"
    body = f"""<h1>{shell.text(title)}</h1>
<dl>
{rows}
</dl>
<nav aria-label="Contents"><ol>
{contents}
</ol></nav>
{parts}"""
    return shell.page(title, _STYLE + STYLE, body)


def _section(number: int, section: Section) -> str:
    text = "\n".join(f"<p>{shell.text(part)}</p>" for part in section.text.split("\n\n") if part)
    table = "" if section.table is None else _table(section, section.table)
    pictures = "\n".join(_figure(figure) for figure in section.figures)
    drawn = "\n".join(map(fragment, section.charts))
    return f"""<section id="part-{number}">
<h2>{shell.text(section.title)}</h2>
{text}
{table}
{pictures}
{f'<div class="charts">{drawn}</div>' if drawn else ""}
</section>"""


def _figure(figure: Figure) -> str:
    """A picture as large as it was drawn, on white, whatever surrounds it."""
    with Image.open(figure.path) as picture:
        width, height = (round(side * _INCH / drawing.DPI) for side in picture.size)
    alternative = shell.text(figure.alternative)
    return f"""<div class="scroll" tabindex="0" role="group" aria-label="{alternative}"><figure>
<img alt="{alternative}" width="{width}" height="{height}" style="--width:{width}px" \
src="{shell.data_uri("image/png", figure.path.read_bytes())}">
</figure></div>"""


def _table(section: Section, table: pd.DataFrame) -> str:
    """A table that scrolls by itself where the page is too narrow for it."""
    if table.empty:
        return "<p>There is nothing to show.</p>"
    known = set(table.columns)
    ends = (*_BESIDE, *_ENDS)
    beside = {c: end for c in known for end in ends if c.removesuffix(end) in known - {c}}
    means = [c for c in table.columns if c not in beside]
    kinds = [' class="number"' if _numeric(table[c]) else "" for c in means]
    heads = "".join(
        f'<th scope="col"{kind}>{shell.text(name)}</th>'
        for name, kind in zip(means, kinds, strict=True)
    )
    nothing = np.zeros(len(table), bool)
    columns = [
        _cells(table, name, _largest(section, table, name) if name in section.best else nothing)
        for name in means
    ]
    rows = "\n".join(_row(cells, kinds) for cells in zip(*columns, strict=True))
    notes = [text for end, text in _BESIDE.items() if end in beside.values()]
    if _ENDS[0] in beside.values():
        notes.append(_INTERVAL)
    if set(section.best) & set(means):
        rows_alike = f" among rows with the same {', '.join(section.among)}"
        notes.append(
            "the largest in bold"
            + (rows_alike if section.among else "")
            + ("" if section.apart is None else ", references aside")
        )
    name, caption = shell.text(section.title), shell.text("; ".join([section.title, *notes]))
    return f"""<div class="scroll" tabindex="0" role="group" aria-label="{name}">
<table>
<caption><span>{caption}</span></caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first, *others = (f"{kind}>{cell}" for cell, kind in zip(cells, kinds, strict=True))
    rest = "".join(f"<td{other}</td>" for other in others)
    return f'<tr><th scope="row"{first}</th>{rest}</tr>'


def _numeric(values: pd.Series) -> bool:
    """Whether there are only numbers in a column, beside what is missing."""
    return all(isinstance(x, Real) and not isinstance(x, bool | np.bool_) for x in values.dropna())


def _largest(section: Section, table: pd.DataFrame, column: str) -> Bool[np.ndarray, " rows"]:
    """Which rows have the largest number of those that they compete with, if there are any."""
    competing = np.ones(len(table), bool)
    if section.apart is not None:
        competing = ~section.apart.to_numpy(bool)
    values = pd.to_numeric(table[column]).where(competing)
    if not section.among:
        return (values == values.max()).to_numpy(bool)
    groups = values.groupby([table[name] for name in section.among], dropna=False)
    return ((values == groups.transform("max")) & (groups.transform("count") > 1)).to_numpy(bool)


def _cells(table: pd.DataFrame, column: str, bold: Bool[np.ndarray, " rows"]) -> list[str]:
    """A column's cells as HTML."""
    values = table[column]
    if not _numeric(values):
        return [_NONE if pd.isna(x) else shell.text(str(x)) for x in values]
    if all(column + end in table for end in _ENDS):
        return _with_intervals(table, column, bold)
    beside = next((table[column + end] for end in _BESIDE if column + end in table), None)
    deviations = pd.Series([None] * len(table)) if beside is None else beside
    decimals = _decimals(values, measured=beside is not None)
    cells = []
    for value, deviation, best in zip(values, deviations, bold, strict=True):
        cell = _shown(value, decimals)
        if best:
            cell = f"<strong>{cell}</strong>"
        if not pd.isna(value) and not pd.isna(deviation):
            cell += f" ± {_shown(float(deviation), decimals)}"
        elif deviations.notna().any():  # leaves its place free, so that means stay in line
            cell += f'<span class="gap"> ± {_shown(0.0, decimals)}</span>'
        cells.append(cell)
    return cells


def _with_intervals(table: pd.DataFrame, column: str, bold: Bool[np.ndarray, " rows"]) -> list[str]:
    """Means with the ends of their intervals, where they have one."""
    lows, highs = (table[column + end] for end in _ENDS)
    decimals = _decimals(table[column], measured=True)
    cells = []
    for value, low, high, best in zip(table[column], lows, highs, bold, strict=True):
        cell = _shown(value, decimals)
        if best:
            cell = f"<strong>{cell}</strong>"
        if not pd.isna(low):
            cell += f" ({_shown(float(low), decimals)} to {_shown(float(high), decimals)})"
        cells.append(cell)
    return cells


def _decimals(values: pd.Series, measured: bool) -> int | None:
    """How many decimals show a column's numbers.

    None for settings and counts, numbers of few digits: they are shown as they are. What is
    `measured` has decimals even if none is needed.
    """
    sizes = np.abs(pd.to_numeric(values).dropna().to_numpy(float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not measured:
        if all(float(f"{x:.{_FEW_DIGITS}g}") == x for x in sizes):
            return None
        if all(x == round(x) for x in sizes):
            return 0
    decimals = 2 if sizes.max(initial=0) >= 1 else 3
    while decimals < _MOST_DECIMALS and sizes.min(initial=1) < 10.0**-decimals:
        decimals += 1
    return decimals


def _shown(value: Any, decimals: int | None) -> str:
    """A number as people read it."""
    if pd.isna(value):
        return _NONE
    if isinstance(value, Integral):
        return f"{value:,}"
    if decimals is None:
        return f"{value:,.{_FEW_DIGITS}g}" if abs(value) < 10**_FEW_DIGITS else f"{value:,.0f}"
    return f"{value:,.{decimals}f}"
