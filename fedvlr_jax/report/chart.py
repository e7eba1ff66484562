"""What a chart shows, however it is drawn: as a picture (drawing.py) or on a page (plotting.py).

Things that have names stand at 0, 1, 2, ... of an axis with `labels`.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedvlr_jax.names import MODALITIES, VARIANTS

Numbers = Sequence[float | int]

# Okabe and Ito's colours, which colour-blind people tell apart; the blue is lighter and black left
# out, to be seen on a dark page, too.
COLOURS = ("#1F83C9", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
GREY = COLOURS.index("#999999")
# A thing has one colour in all charts; variants and modalities never share one.
STYLES = dict(zip(VARIANTS, range(4), strict=True)) | {"nothing": 0}
MODALITY_STYLES = dict(zip(MODALITIES, (5, 4, GREY), strict=True))
_GAP = 0.15  # between labels, of an axis
_MARGIN = 1.05  # above what is drawn


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit.

    Attributes:
        name: and unit.
        log: whether by equal factors.
        zero: whether zero is in sight.
        whole: whether there are whole numbers only.
        marks: numbers that have labels, where there is room for them.
        labels: names of what stands at 0, 1, 2, ...
        limits: what is in sight; None is all that is drawn.
    """

    name: str
    log: bool = False
    zero: bool = False
    whole: bool = False
    marks: Numbers = ()
    labels: Sequence[str] = ()
    limits: tuple[float, float] | None = None

    def marked(self) -> tuple[list[float | int], list[str]] | None:
        """Places and texts of labels, None where they are to be found.

        Labels at marks must not touch, on a phone either.
        """
        if self.labels:
            return list(range(len(self.labels))), list(self.labels)
        places = sorted(math.log(n) if self.log else n for n in set(self.marks))
        gaps = [b - a for a, b in itertools.pairwise(places)]
        if not gaps or min(gaps) < _GAP * sum(gaps):
            return None
        return list(self.marks), [as_text(n) for n in self.marks]

    def shown(self, position: float | int) -> str:
        """A place on it as text."""
        if not self.labels:
            return as_text(position)
        return self.labels[min(max(round(position), 0), len(self.labels) - 1)]


@dataclass(frozen=True)
class Series:
    """Numbers that are drawn alike.

    Attributes:
        name: in the legend.
        x: of a line, in ascending order.
        y: one for each, NaN where there is none; the medians of boxes.
        interval: the lower and the upper ends around each; where both are the number itself, none
            is drawn. Of boxes, their sides.
        style: series of one number share colour and marker.
        kind: "line"; "band", a line with its intervals as a band; "steps"; "points"; "stars",
            which are large; "bars"; or "boxes".
        dash: 0 is whole with markers; others are patterns without, for what is compared with.
        legend: whether it has a place there.
        width: of bars and boxes.
        base: where bars begin, 0 by default.
        whiskers: of boxes.
    """

    name: str
    x: Numbers
    y: Numbers
    interval: tuple[Numbers, Numbers] | None = None
    style: int = 0
    kind: str = "line"
    dash: int = 0
    legend: bool = True
    width: float = 0.8
    base: Numbers | None = None
    whiskers: tuple[Numbers, Numbers] | None = None

    def arms(self) -> tuple[list[float], list[float]] | None:
        """How far intervals reach below and above; None where there is none."""
        if self.interval is None:
            return None
        y, (low, high) = np.array(self.y, float), np.array(self.interval, float)
        below, above = np.nan_to_num([y - low, high - y])
        return (below.tolist(), above.tolist()) if (below + above > 0).any() else None


@dataclass(frozen=True)
class Panel:
    """Series over common axes; a `wide` one has a row of a chart for itself."""

    x: Axis
    y: Axis
    series: Sequence[Series]
    title: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Chart:
    """Panels.

    Attributes:
        alternative: what they show, in words for those who do not see it.
        panels: row by row.
        across: in a row of a picture, at most.
        size: of a panel in a picture, width and height in inches.
    """

    alternative: str
    panels: Sequence[Panel]
    across: int = 3
    size: tuple[float, float] = (4.0, 3.4)


def as_text(number: float | int) -> str:
    """A number at an axis."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.6g}"


def levelled(panels: Sequence[Panel]) -> list[Panel]:
    """Panels that can be compared: the same numbers of y in all, from 0 on."""
    tops = [
        top
        for panel in panels
        for s in panel.series
        for top in (*s.y, *(s.interval[1] if s.interval else ()))
    ]
    most = float(np.nanmax([*tops, 0.0])) if tops else 0.0
    axis = dataclasses.replace(panels[0].y, limits=(0.0, _MARGIN * most or 1.0))
    return [dataclasses.replace(panel, y=axis) for panel in panels]


def side_by_side(number: int, most: int, gap: float) -> float:
    """How far the `number`-th of so many neighbours stands from the middle of them."""
    return gap * (number - (most - 1) / 2)


def ordered(values: Iterable[str], known: Iterable[str]) -> list[str]:
    """The different values, known ones first and in their order."""
    places = {value: position for position, value in enumerate(known)}
    return sorted(dict.fromkeys(values), key=lambda value: places.get(value, len(places)))


def stacked(shares: Mapping[str, Numbers]) -> list[Series]:
    """Modalities' shares as bars on top of each other, at every place of an axis with labels."""
    bars, base = [], np.zeros(len(next(iter(shares.values()), ())))
    for name, share in shares.items():
        look = {"style": MODALITY_STYLES[name], "kind": "bars", "base": base.tolist()}
        bars.append(Series(name, range(len(share)), share, **look))
        base = base + np.nan_to_num(np.array(share, float))
    return bars
