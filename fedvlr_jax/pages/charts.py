"""Charts that answer the pointer, drawn in the browser by plotly.js, which the page carries."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from fedvlr_jax.pages import shell

Numbers = Sequence[float | int]

# Okabe and Ito's colours, the blue lighter and black left out, to be seen on a dark page, too.
_COLOURS = ("#1F83C9", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "x")
_HEIGHT = 400  # pixels
_OPACITY = 0.18  # of a band
_GAP = 0.15  # between labels, of an axis

# Of what plotly writes into its elements, what has to follow the page, light or dark.
STYLE = """
.charts { margin-top: .75rem; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.chart .plot { width: 100%; }
.chart { padding: .5rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; min-width: 0; }
.chart .xtick text, .chart .ytick text, .chart .g-xtitle text, .chart .g-ytitle text,
.chart .legendtext { fill: var(--ink) !important; }
.chart .gridlayer path { stroke: var(--line) !important; }
"""


_DRAW = """
for (const chart of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(chart.querySelector("script").textContent);
  Plotly.newPlot(chart.querySelector(".plot"), figure.data, figure.layout,
    {displayModeBar: false, responsive: true});
}
"""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: in the legend.
        x: numbers in ascending order.
        y: one for each.
        interval: the lower and the upper ends around each, None where there are none; where both
            are the number itself, none is drawn.
        style: lines of one number share colour and marker.
        dashed: for what is compared with, or fitted.
        legend: whether it has a place there.
    """

    name: str
    x: Numbers
    y: Numbers
    interval: tuple[Numbers, Numbers] | None = None
    style: int = 0
    dashed: bool = False
    legend: bool = True


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit.

    Attributes:
        name: and unit.
        log: whether by equal factors.
        zero: whether zero is in sight.
        marks: numbers that have labels, where there is room for them; none leaves that to plotly.
    """

    name: str
    log: bool = False
    zero: bool = False
    marks: Numbers = ()


@dataclass(frozen=True)
class Chart:
    """A chart, and what it shows, in words for those who do not see it."""

    figure: go.Figure = field(repr=False)
    alternative: str


def of_lines(
    alternative: str, x: Axis, y: Axis, lines: Sequence[Line], bands: bool = False
) -> Chart:
    """Lines over numbers, their intervals as bars, or as bands where there are many points."""
    figure = go.Figure(layout=_layout(x, y))
    for line in lines:
        colour = _COLOURS[line.style % len(_COLOURS)]
        marker = _MARKERS[line.style // len(_COLOURS) % len(_MARKERS)]
        below, above = line.interval or (line.y, line.y)
        wide = any(low < high for low, high in zip(below, above, strict=True))
        if wide and bands:
            figure.add_trace(_band(line.x, below, above, colour))
        figure.add_trace(
            go.Scatter(
                x=list(line.x),
                y=list(line.y),
                name=line.name,
                mode="lines" if line.dashed or bands else "lines+markers",
                line={"color": colour, "dash": "dash" if line.dashed else "solid", "width": 2},
                marker={"symbol": marker, "size": 8},
                error_y=None
                if bands or not wide
                else {
                    "symmetric": False,
                    "array": [high - y for high, y in zip(above, line.y, strict=True)],
                    "arrayminus": [y - low for low, y in zip(below, line.y, strict=True)],
                    "thickness": 1.5,
                    "width": 4,
                },
                showlegend=line.legend,
                hoverinfo=None if line.legend else "skip",
                hovertemplate="%{x:,.6~g}: %{y:,.4~g}" if line.legend else None,
            )
        )
    return Chart(figure, alternative)


def of_shares(
    alternative: str, x: Axis, y: Axis, names: Sequence[str], shares: dict[str, Numbers]
) -> Chart:
    """Stacked bars, one for each of `names`, of parts that have a share in each."""
    figure = go.Figure(layout=_layout(x, y))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    for (part, values), colour in zip(shares.items(), itertools.cycle(_COLOURS)):
        figure.add_trace(
            go.Bar(
                x=list(names),
                y=list(values),
                name=part,
                marker={"color": colour},
                hovertemplate="%{x}: %{y:.3~g}",
            )
        )
    return Chart(figure, alternative)


def fragment(chart: Chart) -> str:
    """The place of a chart in a page that ends with `library`, and what is drawn there."""
    # Nothing in it may end the script, or begin a comment in it.
    content = plotly.io.to_json(chart.figure, validate=False).replace("<", "\\u003c")
    alternative = shell.text(chart.alternative)
    return (
        f'<div class="chart" role="img" aria-label="{alternative}">'
        f'<div class="plot" style="height:{_HEIGHT}px"></div>'
        f'<script type="application/json">{content}</script></div>'
    )


def library() -> str:
    """plotly.js, some megabytes, and what draws every chart of the page when all have their place.

    Earlier, a chart would take the room of those that follow it.
    """
    return f"<script>{plotly.offline.get_plotlyjs()}</script>\n<script>{_DRAW}</script>"


def _band(x: Numbers, below: Numbers, above: Numbers, colour: str) -> go.Scatter:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*above, *reversed(below)],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},{_OPACITY})",
        line={"width": 0},
        mode="lines",
        showlegend=False,
        hoverinfo="skip",
    )


def _have_room(axis: Axis) -> bool:
    """Whether labels at an axis's marks do not touch, on a phone either."""
    places = sorted(math.log(n) if axis.log else n for n in set(axis.marks))
    gaps = [b - a for a, b in itertools.pairwise(places)]
    return bool(gaps) and min(gaps) >= _GAP * sum(gaps)


def _layout(x: Axis, y: Axis) -> go.Layout:
    def axis(of: Axis) -> dict:
        shown = {
            "title": {"text": of.name, "standoff": 8},
            "type": "log" if of.log else "linear",
            "automargin": True,
            "zeroline": False,
            "exponentformat": "none",
            "separatethousands": True,
        }
        if of.log:
            # 1, 2 and 5 of every power: a narrow range has labels, too.
            shown |= {"dtick": "D2", "tickformat": ",.6~g"}
        if _have_room(of):
            shown |= {"tickvals": list(of.marks), "ticktext": [f"{n:,g}" for n in of.marks]}
        if of.zero:
            shown |= {"rangemode": "tozero"}
        return shown

    return go.Layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        xaxis=axis(x),
        yaxis=axis(y),
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        hovermode="closest",
        showlegend=True,
    )
