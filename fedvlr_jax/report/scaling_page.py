"""What the page of a study of the number of clients says: answers, panels, laws, runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax.analysis.trends import PowerLaw
from fedvlr_jax.report import scaling_results, seeds
from fedvlr_jax.report.chart import Axis, Chart, Panel, Series
from fedvlr_jax.report.scaling_results import (
    ACCURACY,
    BEYOND,
    BYTES,
    QUANTITIES,
    ROUNDS,
    SIMULATED,
    TIME,
    WITHIN,
    Fit,
    Quantity,
)
from fedvlr_jax.report.sections import Section
from fedvlr_jax.report.sections import page as as_html
from fedvlr_jax.runs.declare import Axes

_AXES = {
    TIME: "median time of a round (s)",
    ROUNDS: "rounds to the target",
    BYTES: "down and up to the target (MB)",
    SIMULATED: "simulated time to the target (s)",
    ACCURACY: "test NDCG@50 (%)",
}
_MARGIN = 1.6  # above and below of what is on a logarithmic axis
_ABOVE = 1.15  # of accuracy
_FITS = (
    "A power law is fitted to the logarithms of all runs by maximum likelihood: a run that did not "
    "reach the target counts as taking more than it spent. Accuracy is the mean over all evaluated "
    "users of the best round's test NDCG@50; its law is fitted to the means of all numbers of "
    "clients. Intervals of 95 % are made of what seeds (and users) differ by at each number of "
    "clients, with Student's t for the few seeds there are. A trend is told where the exponent's "
    "interval does not hold 0; of accuracy, where that of its change from the smallest number of "
    "clients to the largest does not."
)
_OWN = "Every run has a population of its own, so intervals hold for populations that are drawn."
_SAME = (
    "All runs are of one population for each number of clients (--data_seed), so intervals of "
    "costs hold for this population only; those of accuracy hold for users drawn like these."
)


def page(
    title: str,
    fitted: Sequence[Fit],
    runs: pd.DataFrame,
    axes: Axes,
    target: str,
    remarks: Sequence[str],
    facts: Mapping[str, str],
) -> str:
    """The page, the answer first; `facts` are how it was made, the others as in `sections`."""
    made = pd.DataFrame({"what": list(facts), "it is": list(facts.values())})
    parts = sections(fitted, runs, axes, target, remarks)
    return as_html(title, {}, [*parts, Section("How it was made", "", made)])


def sections(
    fitted: Sequence[Fit], runs: pd.DataFrame, axes: Axes, target: str, remarks: Sequence[str]
) -> list[Section]:
    """The page's sections.

    Args:
        fitted: the laws.
        runs: the table of `scaling_results`.
        axes: what is swept.
        target: as given.
        remarks: what else a person should know, as sentences.
    """
    same = any(fit.same_users for fit in fitted)
    sentences = [scaling_results.sentence(fit) for fit in fitted] or ["No run has finished."]
    told = f"The target is {target}"
    told += ", a share of every run's own best value." if target.endswith("max") else "."
    answer = "\n\n".join([*sentences, told, *(f"{r[0].upper()}{r[1:]}." for r in remarks)])
    return [
        Section("Answer", answer),
        Section(
            "Over the number of clients",
            "Points are runs, at the upper end of a cost that is known as an interval. Lines are "
            "the fitted laws with their 95 % intervals; dashed, they go on to "
            f"{BEYOND} times the largest number of clients, and no further. Large markers are what "
            "runs spent that did not reach the target.",
            charts=(chart(fitted, runs, axes),),
        ),
        Section("Fitted laws", f"{_FITS} {_SAME if same else _OWN}", _fits(fitted)),
        Section(
            "Every run",
            "A cost is that of the first evaluation with the target's value; study.json has the "
            "least that it may have been, what was spent without reaching it, client updates and "
            "seconds as well.",
            _runs(runs, axes),
        ),
    ]


def chart(fitted: Sequence[Fit], runs: pd.DataFrame, axes: Axes) -> Chart:
    """A panel for every quantity, over the number of clients."""
    panels = [
        _panel(quantity, [fit for fit in fitted if fit.quantity == quantity], runs, axes)
        for quantity in QUANTITIES
        if any(fit.quantity == quantity and fit.values for fit in fitted)
    ]
    return Chart("Costs and accuracy over the number of clients.", panels, 2, (4.8, 3.6))


def _panel(quantity: Quantity, fitted: Sequence[Fit], runs: pd.DataFrame, axes: Axes) -> Panel:
    drawn: list[Series] = []
    for style, fit in enumerate(fitted):
        mine = runs
        for name, value in fit.settings.items():
            mine = mine[mine[name] == value]
        drawn += _of_fit(quantity, fit, mine, style)
    shown = [y for s in drawn for y in s.y]
    if quantity == ACCURACY:
        y = Axis(_AXES[quantity], limits=(0.0, min(_ABOVE * max(shown, default=0), 100) or 1.0))
    elif min(shown) > 0:
        # An interval may be wider than what is worth seeing.
        y = Axis(_AXES[quantity], log=True, limits=(min(shown) / _MARGIN, max(shown) * _MARGIN))
    else:
        y = Axis(_AXES[quantity], zero=True)
    marks = [*axes["clients"], BEYOND * max(axes["clients"])]
    return Panel(seeds.axis_of("clients", marks, by_factors=True), y, drawn)


def _of_fit(quantity: Quantity, fit: Fit, runs: pd.DataFrame, style: int) -> list[Series]:
    """The runs of one combination, and the law that is fitted to them."""
    which = seeds.label(fit.settings, list(fit.settings))
    scale, drawn = quantity.scale, []
    known = runs[runs[quantity.key].notna()].sort_values("clients", kind="stable")
    name = which or "runs"
    if len(known):
        y = (scale * known[quantity.key].astype(float)).tolist()
        drawn.append(Series(name, known["clients"].tolist(), y, style=style, kind="points"))
    if fit.n_censored:
        lost = runs[runs[quantity.key].isna()].sort_values("clients", kind="stable")
        y = (scale * lost[quantity.least].astype(float)).tolist()
        name = f"{which}, not reached".removeprefix(", ")
        drawn.append(Series(name, lost["clients"].tolist(), y, style=style + 1, kind="stars"))
    if fit.law is None:
        return drawn
    curve = scaling_results.within_limits(fit)
    parts = [np.array(part) * scale for part in (curve.value, curve.low, curve.high)]
    value, low, high = (np.where(np.isnan(part), parts[0], part) for part in parts)
    for part, dash in ((slice(WITHIN), 0), (slice(WITHIN - 1, None), 1)):
        ends = low[part].tolist(), high[part].tolist()
        name = f"{which} law".strip()
        look = {"style": style, "kind": "band", "dash": dash, "legend": not dash}
        drawn.append(Series(name, fit.at[part], value[part].tolist(), ends, **look))
    return drawn


def _fits(fitted: Sequence[Fit]) -> pd.DataFrame:
    rows = []
    for fit in fitted:
        told = scaling_results.as_json(fit)
        law, scale = fit.law, fit.quantity.scale
        beyond = told["extrapolation"]
        coefficient = None
        if isinstance(law, PowerLaw) or (law is not None and law.has_limit):
            a = told["coefficients"]["a"] * scale
            coefficient = f"{scaling_results.number(a)} {fit.quantity.unit}"
        row: dict[str, Any] = {"quantity": fit.quantity.name} | fit.settings
        row |= {"verdict": fit.verdict, "law": told["form"]}
        ends = told["interval"] and tuple(told["interval"])
        row |= seeds.with_ends("exponent", told["exponent"], ends)
        row |= {"a": coefficient, "runs": told["n_runs"], "not reached": told["n_censored"]}
        row[f"at {BEYOND} times the largest"] = None
        if beyond is not None:
            ends = beyond["interval"] or ()
            shown = [scaling_results.number(scale * x) for x in (beyond["value"], *ends)]
            bounds = f" ({shown[1]} to {shown[2]})" if ends else ""
            row[f"at {BEYOND} times the largest"] = f"{shown[0]} {fit.quantity.unit}{bounds}"
        rows.append(row)
    return pd.DataFrame(rows)


def _runs(runs: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    if runs.empty:
        return runs
    names = [name for name in axes if name not in ("clients", "seed")]
    table = runs[["clients", *names, "seed"]].copy()
    table["reached"] = np.where(runs["reached"], "yes", "no")
    for quantity in QUANTITIES:
        if quantity.key in runs:
            unit = "" if quantity == ROUNDS else f", {quantity.unit}"
            table[f"{quantity.name}{unit}"] = runs[quantity.key].astype(float) * quantity.scale
    table["best round"] = runs["best_round"]
    return table
