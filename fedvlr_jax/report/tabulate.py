"""Tables as people read them: in HTML, on terminals, in files."""

from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from fedvlr_jax import files
from fedvlr_jax.report import shell

ENDS = (" low", " high")  # of the names of two columns that are shown in brackets beside one
_NONE = "\N{EN DASH}"
_FEW_DIGITS = 3  # that a setting or a count has, significant ones
_MOST_DECIMALS = 4
_LARGE = 1000  # above which no number has decimals


def as_text(table: pd.DataFrame) -> str:
    """A table for a terminal."""
    known = table.where(table.notna(), np.nan)  # pandas tells None as such
    return known.to_string(index=False, float_format=lambda x: f"{x:,.4g}", na_rep="--")


def write(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write `name`.csv and `name`.md into a folder that is there, each in one step."""
    files.write_table(folder / f"{name}.csv", table)
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[_in_markdown(x) for x in row] for row in table.itertuples(index=False)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    files.write_text(folder / f"{name}.md", text)


def _in_markdown(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_html(
    title: str,
    table: pd.DataFrame,
    best: Sequence[str] = (),
    apart: pd.Series | None = None,
    among: Sequence[str] = (),
) -> str:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        title: of its caption.
        table: columns `X low` and `X high`, an interval's ends, are shown beside the mean `X`, in
            one cell.
        best: columns whose largest number is in bold.
        apart: which rows do not compete for that, None for all do.
        among: columns; only rows that are equal in them compete with one another. Alone, a row
            is not in bold.
    """
    if table.empty:
        return "<p>There is nothing to show.</p>"
    beside = {f"{name}{end}" for name in table for end in ENDS}
    means = [name for name in table if name not in beside]
    kinds = [' class="number"' if _numeric(table[name]) else "" for name in means]
    heads = "".join(
        f'<th scope="col"{kind}>{shell.text(name)}</th>'
        for name, kind in zip(means, kinds, strict=True)
    )
    nothing = np.zeros(len(table), bool)
    columns = [
        _cells(table, name, _largest(table, name, apart, among) if name in best else nothing)
        for name in means
    ]
    rows = "\n".join(_row(cells, kinds) for cells in zip(*columns, strict=True))
    notes = ["mean (95 % interval)"] if beside & set(table) else []
    if set(best) & set(means):
        alike = f" among rows with the same {', '.join(among)}" if among else ""
        notes.append(f"the largest in bold{alike}{'' if apart is None else ', references aside'}")
    name, caption = shell.text(title), shell.text("; ".join([title, *notes]))
    return f"""<div class="scroll" tabindex="0" role="group" aria-label="{name}">
<table>
<caption><span>{caption}</span></caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


def number(value: Any, decimals: int | None) -> str:
    """A number as people read it; None for settings and counts, which are shown as they are."""
    if pd.isna(value):
        return _NONE
    if isinstance(value, Integral):
        return f"{value:,}"
    if decimals is None:
        return f"{value:,.{_FEW_DIGITS}g}" if abs(value) < 10**_FEW_DIGITS else f"{value:,.0f}"
    return f"{value:,.{decimals}f}"


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first, *others = (f"{kind}>{cell}" for cell, kind in zip(cells, kinds, strict=True))
    rest = "".join(f"<td{other}</td>" for other in others)
    return f'<tr><th scope="row"{first}</th>{rest}</tr>'


def _numeric(values: pd.Series) -> bool:
    """Whether there are only numbers in a column, beside what is missing."""
    return all(isinstance(x, Real) and not isinstance(x, bool | np.bool_) for x in values.dropna())


def _largest(
    table: pd.DataFrame, column: str, apart: pd.Series | None, among: Sequence[str]
) -> Bool[np.ndarray, " rows"]:
    """Which rows have the largest number of those that they compete with, if there are any."""
    competing = np.ones(len(table), bool) if apart is None else ~apart.to_numpy(bool)
    values = pd.to_numeric(table[column]).where(competing)
    if not among:
        return (values == values.max()).to_numpy(bool)
    groups = values.groupby([table[name] for name in among], dropna=False)
    return ((values == groups.transform("max")) & (groups.transform("count") > 1)).to_numpy(bool)


def _cells(table: pd.DataFrame, column: str, bold: Bool[np.ndarray, " rows"]) -> list[str]:
    """A column's cells as HTML, means with the ends of their intervals, where they have one."""
    values = table[column]
    if not _numeric(values):
        return [_NONE if pd.isna(x) else shell.text(str(x)) for x in values]
    lows, highs = (table.get(column + end, pd.Series([None] * len(table))) for end in ENDS)
    decimals = _decimals(values, measured=f"{column}{ENDS[0]}" in table)
    cells = []
    for value, low, high, best in zip(values, lows, highs, bold, strict=True):
        cell = number(value, decimals)
        if best:
            cell = f"<strong>{cell}</strong>"
        if not pd.isna(low):
            cell += f" ({number(float(low), decimals)} to {number(float(high), decimals)})"
        cells.append(cell)
    return cells


def _decimals(values: pd.Series, measured: bool) -> int | None:
    """How many decimals show a column's numbers.

    None for settings and counts, numbers of few digits. What is `measured` has decimals even if
    none is needed.
    """
    sizes = np.abs(pd.to_numeric(values).dropna().to_numpy(float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not measured:
        if all(float(f"{x:.{_FEW_DIGITS}g}") == x for x in sizes):
            return None
        if all(x == round(x) for x in sizes):
            return 0
    if len(sizes) and sizes.min() >= _LARGE:
        return 0
    decimals = 2 if sizes.max(initial=0) >= 1 else 3
    while decimals < _MOST_DECIMALS and sizes.min(initial=1) < 10.0**-decimals:
        decimals += 1
    return decimals
