"""Pictures of a study: a data frame in, a PNG on disk, replaced in one step."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from fedvlr_jax import drawing
from fedvlr_jax.analysis import groups
from fedvlr_jax.names import MODALITIES, VARIANTS

_SCORE = "warm/ndcg@50"
SCORE_LABEL = "test NDCG@50, warm users (%)"
# A thing has one colour in all pictures; variants and modalities never share one.
_BLUE, _SKY, _RED, _ORANGE, _GREEN, _PINK, _BLACK, _GREY = drawing.COLOURS
COLOURS = dict(zip(VARIANTS, (_BLUE, _RED, _GREEN, _PINK), strict=True))
_MODALITY_COLOURS = dict(zip(MODALITIES, (_ORANGE, _SKY, _GREY), strict=True))
_REMOVED_COLOURS = {"nothing": _BLUE, **_MODALITY_COLOURS}
_DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
_ERROR = {"elinewidth": 1.2, "capsize": 3, "ecolor": "#222222"}
_ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}  # a panel's legend
_LEVEL = 0.95  # of intervals
_FEWEST_BARS = 3  # in a group, that they are as wide as
_MARGIN = 1.4  # left and right of what is on a logarithmic axis
_SHIFT = 1.025  # of neighbouring lines on a logarithmic axis, so that their deviations show


def accuracy(table: pd.DataFrame, path: Path) -> None:
    """Test NDCG@50 of warm users, in percent, by recommender and variant.

    Args:
        table: of `tables.accuracy_table`. Rows of variant "centralized" become lines across the
            picture, the others bars with the standard deviation over seeds, where there is one.
        path: of the PNG, in a folder that is there.
    """
    references = table[table["variant"] == "centralized"]
    bars = table[table["variant"] != "centralized"]
    figure = drawing.empty(max(7.0, 3.2 + 1.5 * bars["recommender"].nunique()), 4.6)
    axis = figure.subplots()
    _grouped_bars(axis, bars, "variant", ordered(bars["variant"], VARIANTS), COLOURS)
    _reference_lines(axis, references)
    axis.set_ylabel(SCORE_LABEL)
    legend_above(figure, axis)
    drawing.save(figure, path)


def removal(table: pd.DataFrame, path: Path) -> None:
    """Test NDCG@50 of warm users, in percent, after a modality has been taken out (figure 3).

    Args:
        table: columns `recommender`, `removed` ("nothing" or a modality), `warm/ndcg@50` and
            `warm/ndcg@50 sd`, in percent.
        path: of the PNG, in a folder that is there.
    """
    removed = ordered(table["removed"], ("nothing", *MODALITIES))
    figure = drawing.empty(max(7.0, 2.0 + 1.5 * table["recommender"].nunique()), 4.4)
    axis = figure.subplots()
    _grouped_bars(axis, table, "removed", removed, _REMOVED_COLOURS, "{} removed")
    axis.set_ylabel(SCORE_LABEL)
    legend_above(figure, axis)
    drawing.save(figure, path)


def reliance(table: pd.DataFrame, path: Path) -> None:
    """What users rely on, over all of them and by how much they have done (figure 2).

    On top the distribution over users (box: quartiles and median, whiskers: 5th and 95th
    percentile); then by length of history mean NDCG@50 with its 95 % interval (Student's t over
    users), and mean reliance.

    Args:
        table: a row per user and recommender: `recommender`, the shares `image`, `text`, `id`,
            which add up to 1, `history_length` in items, and `gain`, the NDCG@50 in percent of
            the user's warm test item, NaN where there is none.
        path: of the PNG, in a folder that is there.
    """
    recommenders = list(dict.fromkeys(table["recommender"]))
    activity = _by_activity(table)
    figure = drawing.empty(max(7.5, 2.3 * len(recommenders)), 10.0)
    grid = figure.add_gridspec(3, len(recommenders))
    _reliance_boxes(figure.add_subplot(grid[0, :]), table, recommenders)
    _activity_scores(figure.add_subplot(grid[1, :]), activity, recommenders)
    first = None
    for column, recommender in enumerate(recommenders):
        axis = figure.add_subplot(grid[2, column], sharey=first)
        _activity_reliance(axis, activity, recommender)
        axis.tick_params(labelleft=column == 0)
        axis.tick_params(axis="x", labelrotation=90 if len(recommenders) > 1 else 0)
        first = first or axis
    first.set_ylabel("mean reliance (%)")
    figure.supxlabel("history length (train items)", fontsize="medium")
    drawing.save(figure, path)


def recovery(table: pd.DataFrame, path: Path) -> None:
    """How well planted preferences are found, and what that pays, by how concentrated they are.

    Args:
        table: a row per `concentration` of the planted preferences and group of clients,
            `history` ("all", "20 and more", ...); rank correlations `spearman weights` and
            `spearman removal` from -1 to 1; `gain %`, how much better fedvlr is than mlp,
            relative, in percent; beside each its standard deviation over seeds, `<column> sd`.
            NaN is left out.
        path: of the PNG, in a folder that is there.
    """
    figure, (left, right) = drawing.panels(2, (5.2, 4.4))
    histories = list(dict.fromkeys(table["history"]))
    by_history = {history: table[table["history"] == history] for history in histories}
    ways = (("spearman weights", "view weights", _BLUE), ("spearman removal", "removal", _RED))
    shown = [(h, line) for h, line in (("20 and more", "-"), ("all", "--")) if h in by_history]
    for number, (history, line) in enumerate(shown):
        for column, name, colour in ways:
            label = f"by {name}, {_history_label(history)}"
            _line(left, by_history[history], column, label, colour, line, number)
    left.set_ylabel("rank correlation with planted preferences")
    left.set_ylim(top=1.03)
    parts = [history for history in histories if history != "all"]
    # Ordered like the groups, dark to light, as far as it shows on white.
    shades = colormaps["viridis"](np.linspace(0.05, 0.82, max(len(parts), 1)))
    for number, (history, shade) in enumerate(zip(parts, shades, strict=False), 1):
        _line(right, by_history[history], "gain %", _history_label(history), shade, "-", number)
    if "all" in by_history:
        _line(right, by_history["all"], "gain %", "all clients", _BLACK, "--", 0)
    right.axhline(0, color=_GREY, linewidth=1)
    right.set_ylabel("NDCG@50 of fedvlr relative to mlp (%)")
    for axis in (left, right):
        axis.set_xscale("log")
        sizes = sorted(set(table["concentration"]))
        axis.set_xlim(min(sizes) / _MARGIN, max(sizes) * _MARGIN)
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("Dirichlet concentration of preferences")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(**_ABOVE, ncols=2, fontsize="small", handlelength=3.5)
    drawing.save(figure, path)


def ordered(values: Iterable[str], known: Sequence[str]) -> list[str]:
    """The different values, known ones first and in their order."""
    found = list(dict.fromkeys(values))
    return [v for v in known if v in found] + [v for v in found if v not in known]


def numbers(values: pd.Series) -> Float[np.ndarray, " rows"]:
    """As numbers, NaN for what is missing."""
    return pd.to_numeric(values).to_numpy(float)


def _grouped_bars(
    axis: Axes,
    table: pd.DataFrame,
    by: str,
    order: Sequence[str],
    colours: dict[str, str],
    label: str = "{}",
) -> None:
    """Bars of the score, a group per recommender, a colour per value of column `by`."""
    recommenders = list(dict.fromkeys(table["recommender"]))
    width = 0.84 / max(len(order), _FEWEST_BARS)
    for number, value in enumerate(order):
        rows = table[table[by] == value]
        place = [recommenders.index(r) for r in rows["recommender"]]
        axis.bar(
            np.array(place, float) + (number - (len(order) - 1) / 2) * width,
            numbers(rows[_SCORE]),
            0.92 * width,
            yerr=numbers(rows[f"{_SCORE} sd"]),
            color=colours.get(value, drawing.COLOURS[number % len(drawing.COLOURS)]),
            label=label.format(value),
            error_kw=_ERROR,
        )
    axis.set_xticks(range(len(recommenders)), recommenders)
    axis.set_xlim(-0.55, max(len(recommenders), 1) - 0.45)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def _reference_lines(axis: Axes, references: pd.DataFrame) -> None:
    """A line per reference, its name and number at the right edge, clear of the others'."""
    known = references.assign(score=numbers(references[_SCORE])).dropna(subset="score")
    known = known.sort_values("score")
    if known.empty:
        return
    axis.set_ylim(top=max(axis.get_ylim()[1], 1.06 * known["score"].iloc[-1]))
    _, top = axis.get_ylim()
    places = _apart(known["score"].to_numpy(), 0.055 * top)
    for number, (name, score, place) in enumerate(
        zip(known["recommender"], known["score"], places, strict=True)
    ):
        axis.axhline(score, color="#444444", linewidth=1.3, linestyle=_DASHES[number % 5])
        axis.annotate(
            f"{name} {score:.1f}",
            (1, score),
            (1.03, place / top),
            xycoords=("axes fraction", "data"),
            textcoords="axes fraction",
            va="center",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "color": "#444444", "linewidth": 0.7, "shrinkB": 0},
        )


def _apart(values: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Places near ascending values, at least `gap` apart."""
    places = values.astype(float).copy()
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    return places


def legend_above(figure: Figure, axis: Axes) -> None:
    """One legend for the whole picture, outside of all panels."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _by_activity(table: pd.DataFrame) -> pd.DataFrame:
    """Means of every recommender's users by length of history; groups without users are left out.

    Columns: `recommender`, `history`, `users`, `scored` (users that have a gain), `gain`, `half`
    (half its interval; NaN for fewer than two users), and the modalities.
    """
    rows = []
    for recommender, users in table.groupby("recommender", sort=False):
        lengths = users["history_length"].to_numpy()
        for name, low, high in groups.ranges(groups.HISTORY_EDGES):
            mine = users[groups.within(lengths, low, high)]
            gain = numbers(mine["gain"])
            gain = gain[np.isfinite(gain)]
            n = len(gain)
            half = np.nan
            if n > 1:
                half = stats.t.ppf((1 + _LEVEL) / 2, n - 1) * gain.std(ddof=1) / np.sqrt(n)
            if len(mine):
                rows.append(
                    {
                        "recommender": recommender,
                        "history": name,
                        "users": len(mine),
                        "scored": n,
                        "gain": gain.mean() if n else np.nan,
                        "half": half,
                        **{m: float(mine[m].mean()) for m in MODALITIES},
                    }
                )
    return pd.DataFrame(rows)


def _reliance_boxes(axis: Axes, table: pd.DataFrame, recommenders: Sequence[str]) -> None:
    """A box per recommender and modality."""
    for number, modality in enumerate(MODALITIES):
        shares = [
            100 * numbers(table.loc[table["recommender"] == r, modality].dropna())
            for r in recommenders
        ]
        axis.boxplot(
            shares,
            positions=np.arange(len(recommenders)) + 0.26 * (number - 1),
            widths=0.2,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": _MODALITY_COLOURS[modality]},
            medianprops={"color": "#000000", "linewidth": 1.6},
            label=modality,
        )
    axis.set_xticks(range(len(recommenders)), recommenders)
    axis.set_xlim(-0.55, len(recommenders) - 0.45)
    axis.set_ylim(0, 100)
    axis.set_ylabel("reliance of users (%)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(**_ABOVE, ncols=3)


def _groups(activity: pd.DataFrame) -> list[str]:
    """Names of the groups that somebody is in, ascending."""
    names = [name for name, _, _ in groups.ranges(groups.HISTORY_EDGES)]
    return ordered(activity["history"], names)


def _activity_scores(axis: Axes, activity: pd.DataFrame, recommenders: Sequence[str]) -> None:
    """Mean NDCG@50 by group, a line per recommender, side by side so that intervals show."""
    names = _groups(activity)
    spread = 0.09
    for number, recommender in enumerate(recommenders):
        rows = activity[activity["recommender"] == recommender]
        shift = spread * (number - (len(recommenders) - 1) / 2)
        place = np.array([names.index(name) for name in rows["history"]]) + shift
        axis.errorbar(
            place, rows["gain"], rows["half"], capsize=3, label=recommender, **drawing.style(number)
        )
    labels = []
    for name in names:
        counts = activity.loc[activity["history"] == name, "scored"]
        low, high = counts.min(), counts.max()
        labels.append(f"{name}\nn = {low:,}" + (f" to {high:,}" if high > low else ""))
    axis.set_xticks(range(len(names)), labels)
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(f"{SCORE_LABEL}\nmean and 95 % interval")
    axis.set_xlabel("history length (train items); n: users with a warm test item")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(**_ABOVE, ncols=len(recommenders))


def _activity_reliance(axis: Axes, activity: pd.DataFrame, recommender: str) -> None:
    """Mean reliance by group, stacked up to 100 %."""
    rows = activity[activity["recommender"] == recommender]
    bottom = np.zeros(len(rows))
    for modality in MODALITIES:
        shares = 100 * rows[modality].to_numpy()
        axis.bar(rows["history"], shares, 0.8, bottom, color=_MODALITY_COLOURS[modality])
        bottom = bottom + shares
    axis.set_title(recommender, fontsize="medium")
    axis.set_ylim(0, 100)


def _history_label(history: str) -> str:
    return "all clients" if history == "all" else f"{history} items"


def _line(
    axis: Axes, rows: pd.DataFrame, column: str, label: str, colour: Any, line: str, number: int
) -> None:
    """A column over the concentration, with deviations where known; the `number`-th line."""
    rows = rows.sort_values("concentration")
    axis.errorbar(
        rows["concentration"] * _SHIFT**number,
        numbers(rows[column]),
        numbers(rows[f"{column} sd"]),
        label=label,
        color=colour,
        linestyle=line,
        marker="o",
        markersize=5,
        linewidth=1.8,
        elinewidth=1,
        capsize=3,
    )
