"""Charts as PNG files."""

import warnings
from pathlib import Path
from typing import Any

from matplotlib import axes as plots
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fedvlr_jax import files
from fedvlr_jax.report.chart import COLOURS, Axis, Chart, Panel, Series, as_text

# In the order of plotting.MARKERS.
_MARKERS = ("o", "X", "^", "D", "P", "*", "v", "s")
_DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
_ERROR = {"capsize": 3, "elinewidth": 1.2}
DPI = 150  # of a PNG
_BESIDE = 0.55  # left of the first of things that have names, and right of the last
_ALONE = 1.001  # the end of a logarithmic axis over its begin, where there is a single number
_AROUND = 3.0  # factor that is in sight on both sides of it
_ABOVE = 0.03  # of what is in sight, above what is drawn
_MOST_ROWS = 6  # of a legend, beside one for how many more there are
_CHARACTERS = 11.0  # of a legend, in an inch
_CROWDED = 11.0  # characters of labels, in an inch of a panel, above which they are turned


def write(chart: Chart, path: Path) -> None:
    """Draw a chart into a folder that is there, in one step."""
    save(figure(chart), path)


def figure(chart: Chart) -> Figure:
    """A chart as a figure. It belongs to its caller: pyplot does not know it."""
    narrow = sum(not panel.wide for panel in chart.panels)
    columns = min(max(narrow, 1), chart.across)
    rows = -(-narrow // columns) + len(chart.panels) - narrow
    width, height = chart.size
    drawn = empty(width * columns, height * rows)
    grid, cell = drawn.add_gridspec(rows, columns), 0
    legends = []
    for k, panel in enumerate(chart.panels):
        row, column = divmod(cell, columns)
        axis = drawn.add_subplot(grid[row, :] if panel.wide else grid[row, column])
        cell += columns if panel.wide else 1
        inches = width * (columns if panel.wide else 1)
        _draw(axis, panel, inches)
        if column and panel.y == chart.panels[k - 1].y:
            axis.set_ylabel("")
        handles, names = axis.get_legend_handles_labels()
        legends.append((axis, dict(zip(names, handles, strict=True)), inches))
    most = max((names for _, names, _ in legends), key=len)
    if all(set(names) <= set(most) for _, names, _ in legends):  # then one is enough
        _legend(drawn, most, width * columns, loc="outside upper center")
        return drawn
    for k, (axis, names, inches) in enumerate(legends):
        if not any(set(names) == set(other) for _, other, _ in legends[:k]):
            _legend(axis, names, inches, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return drawn


def _legend(above: Any, names: dict[str, Any], inches: float, **place: Any) -> None:
    """A legend in so many columns as its width has room for, and no more than some rows."""
    if names:
        each = max(map(len, names)) + 6
        columns = max(1, min(len(names), int(inches * _CHARACTERS / each)))
        shown = dict(list(names.items())[: _MOST_ROWS * columns])
        if len(shown) < len(names):
            shown[f"and {len(names) - len(shown)} more"] = Line2D([], [], linestyle="")
        look = {"ncols": columns, "fontsize": "small", "frameon": False}
        above.legend(list(shown.values()), list(shown), **look, **place)


def style(number: int) -> dict[str, Any]:
    """How the `number`-th line of a picture looks."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linewidth": 1.8,
        "markersize": 6,
    }


def empty(width: float, height: float) -> Figure:
    """A figure without panels, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    temporary = path.with_name(files.UNFINISHED + path.name)
    drawn.savefig(temporary, dpi=DPI, format="png")
    temporary.replace(path)


def _draw(axis: plots.Axes, panel: Panel, inches: float) -> None:
    scales = ("log" if of.log else "linear" for of in (panel.x, panel.y))
    axis.set(**dict(zip(("xscale", "yscale"), scales, strict=True)))
    for series in panel.series:
        {"bars": _bars, "boxes": _boxes}.get(series.kind, _line)(axis, series)
    axis.set_title(panel.title, fontsize="medium")
    axis.set_xlabel(panel.x.name)
    axis.set_ylabel(panel.y.name)
    _scale(axis, "x", panel.x, inches)
    _scale(axis, "y", panel.y, inches)
    axis.grid(alpha=0.3, axis="y" if panel.x.labels else "both")
    axis.set_axisbelow(True)


def _label(series: Series) -> str | None:
    return series.name if series.legend else None


def _line(axis: plots.Axes, series: Series) -> None:
    look = style(series.style) | {"linestyle": _DASHES[series.dash % len(_DASHES)]}
    if series.dash or series.kind in ("band", "steps"):
        look["marker"] = "." if len(series.x) < 2 or series.kind == "band" else ""
    if series.kind in ("points", "stars"):
        look["linestyle"] = ""
    if series.kind == "stars":
        look |= {"markersize": 14, "markeredgecolor": "black", "zorder": 4}
    if series.kind == "steps":
        look["drawstyle"] = "steps-post"
    arms = series.arms()
    if arms and series.kind == "band":
        axis.fill_between(series.x, *series.interval, color=look["color"], alpha=0.18, linewidth=0)
        arms = None
    axis.errorbar(series.x, series.y, arms, label=_label(series), **look, **_ERROR)


def _bars(axis: plots.Axes, series: Series) -> None:
    axis.bar(
        series.x,
        series.y,
        series.width,
        0.0 if series.base is None else series.base,
        yerr=series.arms(),
        color=COLOURS[series.style % len(COLOURS)],
        label=_label(series),
        error_kw=_ERROR | {"ecolor": "#222222"},
    )


def _boxes(axis: plots.Axes, series: Series) -> None:
    names = ("med", "q1", "q3", "whislo", "whishi")
    numbers = zip(series.y, *series.interval, *series.whiskers, strict=True)
    axis.bxp(
        [dict(zip(names, row, strict=True)) for row in numbers],
        positions=series.x,
        widths=series.width,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": COLOURS[series.style % len(COLOURS)]},
        medianprops={"color": "#000000", "linewidth": 1.6},
        label=series.name,
    )


def _scale(drawn: plots.Axes, side: str, axis: Axis, inches: float) -> None:
    """Limits, scale and labels of one side of a panel."""
    ticks, limits = getattr(drawn, f"{side}axis"), getattr(drawn, f"set_{side}lim")
    with warnings.catch_warnings():
        # Of a single number with error bars, matplotlib finds a range that is next to empty.
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)
        low, high = getattr(drawn, f"get_{side}lim")()
    if axis.log and high < _ALONE * low:
        low, high = low / _AROUND, high * _AROUND
    if axis.limits:
        low, high = axis.limits
    elif axis.labels:
        low, high = -_BESIDE, len(axis.labels) - 1 + _BESIDE
    elif axis.zero:
        low, high = min(0.0, low), max(0.0, high + _ABOVE * (high - min(0.0, low)))
    limits(low, high)
    marked = axis.marked()
    if marked:
        longest = max(len(line) for text in marked[1] for line in text.split("\n"))
        crowded = side == "x" and (longest + 1) * len(marked[1]) > _CROWDED * inches
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        ticks.set_ticks(*marked, **turned)
    else:
        if axis.log:
            # Where the range is short, powers of ten alone would be too few.
            between = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
            ticks.set_major_locator(LogLocator(subs=between))
        elif axis.whole:
            ticks.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
        ticks.set_major_formatter(FuncFormatter(lambda x, _: as_text(x)))
    ticks.set_minor_locator(NullLocator())
