"""Tables and pictures of both benchmarks."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedvlr_jax import files

# Okabe and Ito's colours, which colour-blind people tell apart; markers differ, too.
_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#000000", "#999999")
_MARKERS = ("o", "P", "s", "^", "D", "v", "X", "*")
_WIDTH = 110  # characters
_MARGIN = 1.3  # left and right of what is drawn


def table(title: str, heads: Sequence[str], left: int = 1) -> Table:
    """An empty table; the first `left` columns hold text, the others numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for k, head in enumerate(heads):
        made.add_column(head, justify="left" if k < left else "right", no_wrap=k > 0)
    return made


def show(parts: Sequence[Table | str], out: Path, name: str) -> None:
    """Print tables and lines, and write them as plain text to `out`/`name`."""
    text = io.StringIO()
    for console in (Console(width=_WIDTH), Console(file=text, width=_WIDTH)):
        for part in parts:
            console.print(part, markup=False, highlight=False)
    files.write_text(out / name, text.getvalue())


def style(number: int) -> dict[str, Any]:
    """How the `number`-th line of a picture looks."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linewidth": 1.8,
        "markersize": 6,
    }


def panels(number: int) -> tuple[Any, list[Any]]:
    """A figure of that many panels, up to three in a row, both axes logarithmic."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(number, 3)
    rows = -(-number // columns)
    size = (8.0, 4.8) if number == 1 else (4.2 * columns, 3.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[number:]:
        axis.remove()
    shown = list(axes.flat[:number])
    for axis in shown:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
    return figure, shown


def whole_ticks(axis: Any, sizes: Sequence[int]) -> None:
    """Mark the sizes that were measured, by their plain numbers."""
    from matplotlib import ticker

    axis.xaxis.set_major_locator(ticker.FixedLocator(sizes))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.set_xlim(min(sizes) / _MARGIN, max(sizes) * _MARGIN)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG in one step, and forget it."""
    from matplotlib import pyplot as plt

    temporary = path.with_name(files.UNFINISHED + path.name)
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)
    plt.close(figure)
