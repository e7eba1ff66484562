"""Tables and pictures of the benchmarks."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import ticker
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedvlr_jax import drawing, files

_WIDTH = 110  # characters
_MARGIN = 1.3  # left and right of what is drawn


def table(title: str, heads: Sequence[str], left: int = 1) -> Table:
    """An empty table; the first `left` columns hold text, the others numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for k, head in enumerate(heads):
        made.add_column(head, justify="left" if k < left else "right", no_wrap=k > 0)
    return made


def show(parts: Sequence[Table | str], out: Path, name: str, width: int = _WIDTH) -> None:
    """Print tables and lines, and write them as plain text to `out`/`name`."""
    text = io.StringIO()
    for console in (Console(width=width), Console(file=text, width=width)):
        for part in parts:
            console.print(part, markup=False, highlight=False)
    files.write_text(out / name, text.getvalue())


def panels(number: int) -> tuple[Any, Sequence[Any]]:
    """A figure of that many panels, up to three in a row, both axes logarithmic."""
    size = (8.0, 4.8) if number == 1 else (4.2, 3.6)
    figure, shown = drawing.panels(number, size)
    for axis in shown:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
    return figure, shown


def whole_ticks(axis: Any, sizes: Sequence[int]) -> None:
    """Mark the sizes that were measured, by their plain numbers."""
    axis.xaxis.set_major_locator(ticker.FixedLocator(sizes))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.set_xlim(min(sizes) / _MARGIN, max(sizes) * _MARGIN)
