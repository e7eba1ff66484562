"""How pictures look and how they get on disk: colours, lines, panels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedvlr_jax import files

# Okabe and Ito's colours, which colour-blind people tell apart; markers differ, too.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#000000", "#999999")
_MARKERS = ("o", "P", "s", "^", "D", "v", "X", "*")
_ACROSS = 3  # panels in a row, at most
DPI = 150  # of a PNG


def style(number: int) -> dict[str, Any]:
    """How the `number`-th line of a picture looks."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linewidth": 1.8,
        "markersize": 6,
    }


def empty(width: float, height: float) -> Figure:
    """A figure without panels, in inches. It belongs to its caller: pyplot does not know it."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(
    number: int, size: tuple[float, float], share_y: bool = False
) -> tuple[Figure, Sequence[Any]]:
    """A figure of so many panels of `size` (width and height, inches), up to three in a row."""
    columns = min(number, _ACROSS)
    rows = -(-number // columns)
    figure = empty(size[0] * columns, size[1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    for axis in axes.flat[number:]:
        axis.remove()
    return figure, list(axes.flat[:number])


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    temporary = path.with_name(files.UNFINISHED + path.name)
    figure.savefig(temporary, dpi=DPI, format="png")
    temporary.replace(path)
