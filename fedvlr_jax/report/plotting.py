"""Charts on a page, which answer the pointer: drawn by plotly.js, which the page carries."""

import math

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from fedvlr_jax.report import shell
from fedvlr_jax.report.chart import COLOURS, Axis, Chart, Numbers, Panel, Series

# In the order of drawing's.
MARKERS = ["circle", "x", "triangle-up", "diamond", "cross", "star", "triangle-down", "square"]
_DASHES = ("solid", "dash", "dot", "dashdot", "longdashdot", "longdash")
_HEIGHT = 400  # pixels
_OPACITY = 0.18  # of a band
_MOST_TICKS = 8  # between whole numbers
_WIDE = 2.5  # powers of ten, beyond which a logarithmic axis has labels at these only

# Of what plotly writes into its elements, what has to follow the page, light or dark.
STYLE = """
.charts { margin-top: .75rem; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.chart .plot { width: 100%; }
.chart { padding: .5rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; min-width: 0; }
.wide { grid-column: 1 / -1; }
.chart h3 { margin: 0; font-size: .95rem; text-align: center; }
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


def fragment(chart: Chart) -> str:
    """The places of a chart's panels in a page that ends with `library`, and what is drawn there.

    Charts stand in an element of class `charts`.
    """
    return "\n".join(_panel(chart.alternative, panel) for panel in chart.panels)


def library() -> str:
    """plotly.js, some megabytes, and what draws every chart of the page when all have their place.

    Earlier, a chart would take the room of those that follow it.
    """
    return f"<script>{plotly.offline.get_plotlyjs()}</script>\n<script>{_DRAW}</script>"


def figure(panel: Panel) -> go.Figure:
    """A panel as plotly's figure."""
    drawn = go.Figure(layout=_layout(panel))
    for series in panel.series:
        drawn.add_traces(_traces(series, panel.x))
    return drawn


def _panel(alternative: str, panel: Panel) -> str:
    # Nothing in it may end the script, or begin a comment in it.
    content = plotly.io.to_json(figure(panel), validate=False).replace("<", "\\u003c")
    label = shell.text(f"{alternative} {panel.title}".strip())
    title = f"<h3>{shell.text(panel.title)}</h3>" if panel.title else ""
    kind = "chart wide" if panel.wide else "chart"
    return (
        f'<div class="{kind}" role="img" aria-label="{label}">{title}'
        f'<div class="plot" style="height:{_HEIGHT}px"></div>'
        f'<script type="application/json">{content}</script></div>'
    )


def _traces(series: Series, x: Axis) -> list[go.Scatter | go.Bar | go.Box]:
    colour = COLOURS[series.style % len(COLOURS)]
    shared = {"x": list(series.x), "name": series.name, "showlegend": series.legend}
    if series.kind == "boxes":
        (low, high), (least, most) = series.interval, series.whiskers
        parts = {"q1": low, "median": series.y, "q3": high, "lowerfence": least, "upperfence": most}
        look = {"marker_color": colour, "width": series.width}
        return [go.Box(**shared, **parts, **look, hovertemplate="%{median:.3~g}")]
    said = {
        "text": [x.shown(position) for position in series.x],
        "hovertemplate": "%{text}: %{y:,.4~g}" if series.legend else None,
        "hoverinfo": None if series.legend else "skip",
    }
    arms = series.arms()
    bars = {"symmetric": False, "thickness": 1.5, "width": 4}
    if arms:
        bars |= {"arrayminus": arms[0], "array": arms[1]}
    error = bars if arms and series.kind != "band" else None
    shared |= {"y": list(series.y), "error_y": error} | said
    if series.kind == "bars":
        look = {"base": series.base, "width": series.width, "marker_color": colour}
        return [go.Bar(**shared, **look, textposition="none")]
    points = series.kind in ("points", "stars")
    plain = series.dash or series.kind in ("band", "steps")
    size = 16 if series.kind == "stars" else 8
    line = go.Scatter(
        **shared,
        mode="markers" if points else "lines" if plain and len(series.x) > 1 else "lines+markers",
        line={
            "color": colour,
            "dash": _DASHES[series.dash % len(_DASHES)],
            "width": 2,
            "shape": "hv" if series.kind == "steps" else "linear",
        },
        marker={"color": colour, "symbol": MARKERS[series.style % len(MARKERS)], "size": size},
    )
    band = arms and series.kind == "band"
    return [_band(series.x, *series.interval, colour), line] if band else [line]


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


def _axis(axis: Axis, places: Numbers) -> dict:
    shown = {
        "title": {"text": axis.name, "standoff": 8},
        "type": "log" if axis.log else "linear",
        "automargin": True,
        "zeroline": False,
        "exponentformat": "none",
        "separatethousands": True,
    }
    marked, limits = axis.marked(), axis.limits
    if axis.log:
        # 1, 2 and 5 of every power, so that a narrow range has labels, too; in a wide one they
        # would touch.
        ends = limits or [n for n in places if n > 0] or [1]
        wide = math.log10(max(ends) / min(ends)) > _WIDE
        shown |= {"dtick": 1 if wide else "D2", "tickformat": ",.6~g"}
    elif axis.whole and len(places):
        shown |= {"tick0": 0, "dtick": max(1, -(-(max(places) - min(places)) // _MOST_TICKS))}
    if marked:
        texts = [text.replace("\n", "<br>") for text in marked[1]]
        shown |= {"tickmode": "array", "tickvals": marked[0], "ticktext": texts}
    if axis.labels and limits is None:
        limits = (-0.55, len(axis.labels) - 0.45)
    if limits:
        shown["range"] = [math.log10(end) if axis.log else end for end in limits]
    elif axis.zero:
        shown["rangemode"] = "tozero"
    return shown


def _layout(panel: Panel) -> go.Layout:
    return go.Layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        barmode="overlay",
        xaxis=_axis(panel.x, [position for s in panel.series for position in s.x]),
        yaxis=_axis(panel.y, [position for s in panel.series for position in s.y]),
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
