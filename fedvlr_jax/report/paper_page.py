"""What the paper's comparison shows: charts, and the report's sections with how to read them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from fedvlr_jax.analysis import groups
from fedvlr_jax.analysis.statistics import around, bounds
from fedvlr_jax.names import MODALITIES, VARIANTS
from fedvlr_jax.report import seeds
from fedvlr_jax.report.chart import (
    GREY,
    MODALITY_STYLES,
    STYLES,
    Axis,
    Chart,
    Panel,
    Series,
    levelled,
    ordered,
    side_by_side,
    stacked,
)
from fedvlr_jax.report.sections import Section

_SCORE = "warm/ndcg@50"
_MARGIN = 1.4  # left and right of what is on a logarithmic axis
_SHIFT = 1.025  # of neighbouring lines on a logarithmic axis, so that their intervals show

_TEXTS: dict[str, tuple[str, str]] = {
    "data": (
        "Data (the paper's table 1)",
        "Leave-one-out by time: every user's last item is the test item, the one before is for "
        "validation. A user is warm if at least one user has its test item among the train "
        "items, and cold otherwise. What is popular says nothing about a cold item, and a ranking "
        "that happens to put unknown items first wins on cold users without learning anything, so "
        "read the warm columns first.",
    ),
    "accuracy": (
        "Accuracy (the paper's table 2)",
        "Test metrics in percent, mean and 95 % interval over seeds, of the round with the best "
        "validation warm NDCG@50; tables/accuracy.csv has standard deviations. Every combination "
        "of backbone and variant had the same search, one seed, "
        "chosen on validation. Centralized references see everybody's data (docs/method.md).",
    ),
    "significance": (
        "Does personal fusion pay?",
        "Difference in NDCG@50 (points of percent) between fedvlr and mlp over warm test users, "
        "averaged over seeds and paired by user: 95 % bootstrap interval over users, and the "
        "p-value of a sign-flip permutation test.",
    ),
    "references": (
        "Beside models that see everyone's data",
        "Difference in NDCG@50 (points of percent) between fedvlr and each centralized reference, "
        "over warm test users, averaged over seeds and paired by user, with intervals and p-values "
        "as above.",
    ),
    "history_length": (
        "By history length",
        "Warm test users by their number of train items; mean and 95 % interval over seeds. "
        "Numbers are in tables/history_length.csv.",
    ),
    "item_popularity": (
        "By popularity of the test item",
        "Test users by how many users have their test item among their train items; 0 is a cold "
        "item. Numbers are in "
        "tables/item_popularity.csv.",
    ),
    "newcomers": (
        "Users who join after training",
        "A share of the users takes no part in training. Afterwards each fits its own router and "
        "head to its history, everything that the server learned held fixed. Accuracy over "
        "newcomers whose test item is in some member's train items, by local epochs of fitting. "
        "Numbers are in tables/newcomers.csv.",
    ),
    "parameters": (
        "Parameters of a client (the paper's table 3)",
        "In thousands. Private numbers never leave the device, received ones are the round's "
        "views and the backbone's network; the paper counts both.",
    ),
    "communication": (
        "Communication",
        "Kilobytes per client and round. In the paper's protocol a client uploads the gradients "
        "of all item embeddings and fusion parameters; here those of the views of the items that "
        "it touched, for histories of 5, 20 and 200 items.",
    ),
    "reliance": (
        "What users rely on (the paper's figure 2)",
        "Shares of image, text and ID in a user's scores under fedvlr: how far the scores move "
        "when a modality is taken out (docs/method.md, Reliance), and accuracy by activity.",
    ),
    "removal": (
        "Each modality removed (the paper's figure 3)",
        "fedvlr trained again without a modality, at the rates chosen with all of them.",
    ),
    "parts": (
        "Each part of the learner removed",
        "fedvlr trained again without it, with everything else as it was chosen with all parts. "
        "Without the spectral start there are no alternating passes and no neighbours either, and "
        "the server learns at the default rate of runs without. Without the exact head clients "
        "take as many local epochs, and routers the rate, as is the default of such runs. Without "
        "the router all views count the same.",
    ),
    "noise": (
        "Noise on gradients (the paper's table 4)",
        "fedvlr trained again with Gaussian noise of this standard deviation on the mean gradient "
        "of everything the server learns, at the rates chosen without. This is the paper's plain "
        "experiment, which gives no noise scale, and it is no guarantee of privacy: for that see "
        "--clip_norm and --noise_multiplier (docs/privacy.md).",
    ),
}


# Tables with a row per user, round or group are for charts and for whoever reads the CSV.
_LONG = ("reliance", "curves", "history_length", "item_popularity", "newcomers")


def charts(tables: Mapping[str, pd.DataFrame], runs: int) -> dict[str, Chart]:
    """The charts of those tables that are there, by their name; every mean is over `runs`."""
    return {
        name: make(with_intervals(tables[name], runs))
        for name, make in _CHARTS.items()
        if name in tables
    }


def sections(
    tables: Mapping[str, pd.DataFrame], drawn: Mapping[str, Chart], runs: int
) -> list[Section]:
    """The report's sections: those whose tables are there, with the `charts` drawn of them."""
    parts = []
    for name, (title, text) in _TEXTS.items():
        if name not in tables:
            continue
        names, look = (name,), {}
        if name == "accuracy":
            apart = tables[name]["variant"] == "centralized"
            names, look = (name, "curves"), {"best": ("warm/hr@50", _SCORE), "apart": apart}
        table = None if name in _LONG else with_intervals(tables[name], runs)
        parts.append(
            Section(title, text, table, tuple(drawn[n] for n in names if n in drawn), **look)
        )
    return parts


def with_intervals(table: pd.DataFrame, runs: int) -> pd.DataFrame:
    """The table with `X low` and `X high`, the ends of the mean's 95 % interval, for `X sd`."""
    columns = {}
    for column in table:
        mean = column.removesuffix(" sd")
        if mean == column or mean not in table:
            columns[column] = table[column]
            continue
        pairs = zip(numbers(table[mean]), numbers(table[column]), strict=True)
        ends = [around(m, sd, runs if sd > 0 else 1, bounds(mean)) for m, sd in pairs]
        for side, end in enumerate(("low", "high")):
            columns[f"{mean} {end}"] = [pair[side] if pair[0] < pair[1] else None for pair in ends]
    # The ends of a mean difference stand beside it.
    return pd.DataFrame(columns).rename(columns={"low": "mean low", "high": "mean high"})


def numbers(values: pd.Series) -> np.ndarray:
    """As numbers, NaN for what is missing."""
    return pd.to_numeric(values).to_numpy(float)


def _styles(variants: Iterable[str]) -> dict[str, int]:
    """The styles of variants, in order."""
    return {v: STYLES.get(v, len(STYLES)) for v in ordered(variants, VARIANTS)}


def _accuracy(table: pd.DataFrame) -> Chart:
    """Bars by recommender and variant; what is centralized becomes lines across."""
    known = table.assign(y=numbers(table[_SCORE])).sort_values("y").dropna(subset="y")
    central = known[known["variant"] == "centralized"]
    bars = table[table["variant"] != "centralized"]
    ends = [-0.55, bars["recommender"].nunique() - 0.45]
    lines = [
        Series(f"{name} {y:.1f}", ends, [y, y], style=GREY, dash=k)
        for k, (name, y) in enumerate(zip(central["recommender"], central["y"], strict=True), 1)
    ]
    summary = "Test NDCG@50 of warm users by backbone and variant."
    return _bars(bars, "variant", _styles(bars["variant"]), summary, lines)


def _removal(table: pd.DataFrame) -> Chart:
    known = {"nothing": 0, **MODALITY_STYLES}
    styles = {name: known.get(name, 1) for name in ordered(table["removed"], known)}
    summary = "Test NDCG@50 of warm users by backbone, with nothing, image, text or ID removed."
    return _bars(table, "removed", styles, summary, name="{} removed")


def _bars(
    table: pd.DataFrame,
    by: str,
    styles: Mapping[str, int],
    summary: str,
    others: Sequence[Series] = (),
    name: str = "{}",
) -> Chart:
    """Bars side by side for every recommender."""
    places, width = list(dict.fromkeys(table["recommender"])), 0.84 / max(len(styles), 3)
    look = {"kind": "bars", "gap": width, "width": 0.92 * width, "name": name}
    drawn = seeds.series(table, _SCORE, "recommender", [by], places, styles, **look)
    y = Axis("test NDCG@50, warm users (%)", zero=True)
    panel = Panel(Axis("", labels=places), y, [*drawn, *others], wide=True)
    return Chart(summary, [panel], size=(max(7.0, 2.4 + 1.6 * len(places)), 4.6))


def _by_recommender(
    table: pd.DataFrame, summary: str, x: Axis, y: Axis, drawn: Callable[..., list[Series]]
) -> Chart:
    """A panel for every recommender with a series per variant."""
    styles = _styles(table["variant"])
    panels = [
        Panel(x, y, drawn(mine, by=["variant"], styles=styles), str(name))
        for name, mine in table.groupby("recommender", sort=False)
    ]
    summary = f"{summary}, a panel per backbone, a line per variant."
    return Chart(summary, levelled(panels), size=(4.0, 3.6))


def _curves(table: pd.DataFrame) -> Chart:
    x, y = Axis("round", whole=True), Axis("validation NDCG@50,\nwarm users (%)")
    drawn = partial(seeds.curves, column=_SCORE)
    return _by_recommender(table, "Validation NDCG@50 over rounds", x, y, drawn)


def _by_group(table: pd.DataFrame, column: str, name: str) -> Chart:
    """Accuracy over the groups that a column names, in order, with how many users they have."""
    places = list(dict.fromkeys(table[column]))
    labels = [str(group) for group in places]
    if "users" in table:
        users = table.drop_duplicates(column)["users"]
        labels = [f"{group}\nn={n:,}" for group, n in zip(labels, users, strict=True)]
    drawn = partial(seeds.series, column="ndcg@50", x=column, places=places)
    axes = Axis(name, labels=labels), Axis("test NDCG@50 (%)")
    return _by_recommender(table, f"Test NDCG@50 by {name}", *axes, drawn)


def _reliance(table: pd.DataFrame) -> Chart:
    """What users rely on, over all of them and by how much they have done (figure 2).

    On top the distribution over users (box: quartiles and median, whiskers: 5th and 95th
    percentile); then by length of history mean NDCG@50 with its 95 % interval over users, and mean
    reliance.
    """
    recommenders = list(dict.fromkeys(table["recommender"]))
    activity = _by_activity(table)
    names = [name for name, *_ in groups.ranges(groups.HISTORY_EDGES)]
    places, labels = ordered(activity["history"], names), []
    for history in places:
        counts = activity.loc[activity["history"] == history, "scored"]
        most = f" to {counts.max():,}" if counts.max() > counts.min() else ""
        labels.append(f"{history}\nn = {counts.min():,}{most}")
    gain = seeds.series(activity, "gain", "history", ["recommender"], places, gap=0.09)
    history, whole = "history length (train items)", (0.0, 100.0)
    panels = [
        Panel(
            Axis("", labels=recommenders),
            Axis("reliance of users (%)", limits=whole),
            [_boxes(table, modality, recommenders) for modality in MODALITIES],
            wide=True,
        ),
        Panel(
            Axis(f"{history}; n: users with a warm test item", labels=labels),
            Axis("test NDCG@50, warm users (%)\nmean and 95 % interval", zero=True),
            gain,
            wide=True,
        ),
    ]
    for name, mine in activity.groupby("recommender", sort=False):
        shares = stacked({m: (100 * mine[m]).tolist() for m in MODALITIES})
        x = Axis(history, labels=mine["history"].tolist())
        panels.append(Panel(x, Axis("mean reliance (%)", limits=whole), shares, str(name)))
    summary = "Reliance of users on image, text and ID, and accuracy and reliance by activity."
    across = max(len(recommenders), 1)
    return Chart(summary, panels, across, (max(2.6, 7.5 / across), 3.3))


def _boxes(table: pd.DataFrame, modality: str, recommenders: Sequence[str]) -> Series:
    """A box for every recommender."""
    shares = [
        100 * numbers(table.loc[table["recommender"] == r, modality].dropna()) for r in recommenders
    ]
    parts = [np.percentile(share, (5, 25, 50, 75, 95)) for share in shares]
    least, low, median, high, most = np.transpose(parts).tolist()
    shift = side_by_side(MODALITIES.index(modality), len(MODALITIES), 0.26)
    x, style = [k + shift for k in range(len(parts))], MODALITY_STYLES[modality]
    look = {"kind": "boxes", "width": 0.2, "whiskers": (least, most)}
    return Series(modality, x, median, (low, high), style, **look)


def _by_activity(table: pd.DataFrame) -> pd.DataFrame:
    """Means of every recommender's users by length of history; groups without users are left out.

    Columns: `recommender`, `history`, `scored` (users that have a gain), `gain` with its interval
    over users, and the modalities.
    """
    rows = []
    for recommender, users in table.groupby("recommender", sort=False):
        lengths = users["history_length"].to_numpy()
        for name, low, high in groups.ranges(groups.HISTORY_EDGES):
            mine = users[groups.within(lengths, low, high)]
            if mine.empty:
                continue
            gains = numbers(mine["gain"].dropna()).tolist()
            row = {"recommender": recommender, "history": name, "scored": len(gains)}
            row |= seeds.mean_of("gain", gains, bounds("ndcg@50"))
            rows.append(row | {m: float(mine[m].mean()) for m in MODALITIES})
    return pd.DataFrame(rows)


def recovery(table: pd.DataFrame, runs: int) -> Chart:
    """How well planted preferences are found, and what that pays, by how concentrated they are.

    Args:
        table: of `recovery_table`, for every `concentration` of the planted preferences.
        runs: that every mean is over.
    """
    table = with_intervals(table, runs)
    histories = list(dict.fromkeys(table["history"]))

    def line(history: str, column: str, name: str, shift: int, style: int) -> list[Series]:
        rows = table[table["history"] == history]
        rows = rows.assign(_x=rows["concentration"] * _SHIFT**shift)
        look = {"styles": {"": style}, "dash": int(history == "all")}
        who = "all clients" if history == "all" else f"{history} items"
        return seeds.series(rows, column, "_x", name=f"{name}{who}", **look)

    correlations, gains = [], []
    for shift, history in enumerate(h for h in ("20 and more", "all") if h in histories):
        correlations += line(history, "spearman weights", "by view weights, ", shift, 0)
        correlations += line(history, "spearman removal", "by removal, ", shift, 1)
    for k, history in enumerate(sorted(histories, key=lambda h: h == "all")):
        gains += line(history, "gain %", "", k, GREY if history == "all" else k)
    sizes = sorted(set(table["concentration"]))
    ends = (min(sizes) / _MARGIN, max(sizes) * _MARGIN)
    gains.append(Series("no gain", ends, (0.0, 0.0), style=GREY, dash=2, legend=False))
    x = Axis("Dirichlet concentration of preferences", True, marks=sizes, limits=ends)
    panels = [
        Panel(x, Axis("rank correlation with planted preferences"), correlations),
        Panel(x, Axis("NDCG@50 of fedvlr relative to mlp (%)"), gains),
    ]
    summary = (
        "Rank correlation with planted preferences, and what it pays, over their concentration."
    )
    return Chart(summary, panels, size=(5.2, 4.4))


_CHARTS: dict[str, Callable[[pd.DataFrame], Chart]] = {
    "accuracy": _accuracy,
    "curves": _curves,
    "history_length": partial(_by_group, column="group", name="train items; n: users"),
    "item_popularity": partial(_by_group, column="group", name="users who have the item; n: users"),
    "newcomers": partial(_by_group, column="epochs", name="local epochs of fitting"),
    "reliance": _reliance,
    "removal": _removal,
}
