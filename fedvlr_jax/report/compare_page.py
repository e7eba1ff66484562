"""Two sweeps, or two runs, against each other: what differs in settings, and what it changed."""

import reprlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import record
from fedvlr_jax.analysis.metrics import cutoffs_of, selection_cutoff
from fedvlr_jax.analysis.statistics import bounds, welch
from fedvlr_jax.config import Config, having, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import seeds
from fedvlr_jax.report.baseline import over_users
from fedvlr_jax.report.chart import Axis, Chart, Panel
from fedvlr_jax.report.sections import Section
from fedvlr_jax.settings import FOLDER, Role, UnfitError, fitted
from fedvlr_jax.targets import Target

# Shown of both, at a K that all runs have.
SCORE = "warm NDCG@{k}, %"
_METRICS = {SCORE: "warm/ndcg@{k}", "warm HR@{k}, %": "warm/hr@{k}"}
# What a target took, its column in metrics.jsonl and its unit there.
_TO_TARGET = {
    "rounds to target": ("round", 1),
    "updates to target": ("client_updates", 1),
    "MB down to target": ("download_bytes", 1e-6),
    "MB up to target": ("upload_bytes", 1e-6),
    "seconds to target": ("seconds", 1),
    "hours on devices": ("simulated_seconds", 1 / 3600),
}
_WIDTH = 100  # characters of what is printed


@dataclass(frozen=True)
class FinishedRun:
    """A finished run on disk: its settings with the data's fingerprint, its summary, its folder."""

    settings: dict[str, Any]
    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Comparison:
    """What two sweeps say of each other.

    Attributes:
        settings: a row per setting that is one thing in all of A and another in all of B.
        table: a row per combination that is in both.
        varied: the table's first columns, in which its rows differ.
        alone: the folders of the runs that have no counterpart, of A and of B.
        cutoff: K of the metrics: 50 where all runs have it, else the largest that they share.
    """

    settings: pd.DataFrame
    table: pd.DataFrame
    varied: tuple[str, ...]
    alone: tuple[list[Path], list[Path]]
    cutoff: int = 50

    @property
    def score(self) -> str:
        """What is compared in the first place."""
        return SCORE.format(k=self.cutoff)


def held(folder: str | Path) -> list[FinishedRun]:
    """The finished runs of a sweep's folder, or the one of a run's.

    Raises:
        UserError: there are none.
    """
    try:
        folder = fitted(Path, FOLDER, folder)
    except UnfitError as expected:
        raise UserError(f"{reprlib.repr(folder)}: expected {expected}") from None
    return [
        FinishedRun(Config().flat() | record.settings(run), _summary(run), run)
        for run in record.finished(folder)
    ]


def _summary(run: Path) -> dict[str, Any]:
    """With the metrics that are compared, at what the best round was chosen by."""
    k = selection_cutoff(cutoffs_of(record.summary(run, ("test",))["test"]))
    names = (f"test/{name.format(k=k)}" for name in _METRICS.values())
    return record.summary(run, (*names, "timing/round_seconds_median"))


def compared(
    first: Sequence[FinishedRun], second: Sequence[FinishedRun], target: Target | None = None
) -> Comparison:
    """Every combination of `second` minus the same one of `first`.

    With a target, what all runs took to reach it is in the table as well, a share being one of the
    best value of all runs of both sides.

    Runs are of one combination if they differ in nothing but the seed and what differs between
    the two as a whole; their layout changes no result. Where both have the same population, users
    are paired as well.

    Raises:
        UserError: no combination is in both, no K that metrics are measured at, or a run has not
            measured what the target names.
    """
    k = _cutoff([*first, *second])
    without = ("seed", *having(Role.LAYOUT))
    names = [name for name in leaves() if name not in without]
    values = [{n: {r.settings.get(n) for r in runs} for n in names} for runs in (first, second)]
    apart = [
        n for n in names if all(len(v[n]) == 1 for v in values) and values[0][n] != values[1][n]
    ]
    varied = tuple(n for n in names if n not in apart and any(len(v[n]) > 1 for v in values))
    groups: list[dict[tuple, list[FinishedRun]]] = [{}, {}]
    for group, runs in zip(groups, (first, second), strict=True):
        for run in runs:
            group.setdefault(tuple(run.settings.get(n) for n in varied), []).append(run)
    common = sorted(
        groups[0].keys() & groups[1], key=lambda key: [(type(v).__name__, v) for v in key]
    )
    if not common:
        raise UserError(
            "the two have no combination of settings in common, expected sweeps over the same "
            "values"
        )
    spent: dict[Path, dict[str, Any]] = {}
    if target is not None:
        curves = {run.folder: record.evaluations(run.folder) for run in (*first, *second)}
        for run, measured in curves.items():
            if measured and target.metric not in measured[-1]:
                raise UserError(
                    f"--target={target.metric}: {run} has not measured it, expected a metric at "
                    "a K that is among the --cutoffs of all runs"
                )
        spent = target.costs_of(curves)
    rows = [
        dict(zip(varied, key, strict=True)) | _row(*(group[key] for group in groups), spent, k)
        for key in common
    ]
    settings = [{"setting": n, "A": str(*values[0][n]), "B": str(*values[1][n])} for n in apart]
    alone = tuple(
        [r.folder for k, runs in g.items() if k not in common for r in runs] for g in groups
    )
    return Comparison(pd.DataFrame(settings), pd.DataFrame(rows), varied, alone, k)


def _cutoff(runs: Sequence[FinishedRun]) -> int:
    """K of the metrics that all runs have."""
    known = [cutoffs_of(run.summary["test"]) for run in runs]
    shared = set.intersection(*known)
    if not shared:
        asked = " and ".join(dict.fromkeys(",".join(map(str, sorted(one))) for one in known))
        raise UserError(
            f"the two have metrics at no K in common (--cutoffs={asked}), expected runs with a K "
            "in common"
        )
    return selection_cutoff(shared)


def _row(
    first: Sequence[FinishedRun],
    second: Sequence[FinishedRun],
    spent: Mapping[Path, Mapping[str, Any]],
    k: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"runs of A": len(first), "runs of B": len(second)}
    for name, metric in _at(k).items():
        a, b = ([run.summary["test"].get(metric) for run in runs] for runs in (first, second))
        if None in a or None in b:
            continue
        row |= seeds.mean_of(f"A: {name}", a, bounds(metric))
        row |= seeds.mean_of(f"B: {name}", b, bounds(metric))
        if name == SCORE.format(k=k):
            row |= seeds.with_ends("B - A", float(np.mean(b) - np.mean(a)), welch(b, a))
    difference = over_users(*([run.folder for run in runs] for runs in (second, first)), cutoff=k)
    row["over users"] = str(difference) if difference and difference.users else None
    seconds = [
        float(np.median([run.summary["timing"]["round_seconds_median"] or np.nan for run in runs]))
        for runs in (first, second)
    ]
    row["round time, B / A"] = seconds[1] / seconds[0] if seconds[0] else np.nan
    timed = any(costs["simulated_seconds"] is not None for costs in spent.values())
    for name, (column, unit) in _TO_TARGET.items() if spent else ():
        if column == "simulated_seconds" and not timed:
            continue  # clients have no devices
        for side, runs in zip("AB", (first, second), strict=True):
            costs = [spent[run.folder][column] for run in runs]
            costs = [None if cost is None else cost * unit for cost in costs]
            row |= seeds.mean_of(f"{side}: {name}", costs, (0.0, np.inf))
    return row


def _at(k: int) -> dict[str, str]:
    """What is shown of both, and the metric that it is."""
    return {name.format(k=k): metric.format(k=k) for name, metric in _METRICS.items()}


def lines(comparison: Comparison, first: str, second: str) -> list[str]:
    """The comparison as text, which is readable at 100 columns."""
    text = [f"A: {first}", f"B: {second}"]
    for _, row in comparison.settings.iterrows():
        text.append(f"--{row['setting']}: {row['A']} in A, {row['B']} in B")
    text += ["no setting differs"] if comparison.settings.empty else []
    for _, row in comparison.table.iterrows():
        values = ", ".join(f"{n}={row[n]}" for n in comparison.varied) or "all runs"
        title = f"{values} ({row['runs of A']} runs of A, {row['runs of B']} of B)"
        text += ["", *textwrap.wrap(title, _WIDTH, subsequent_indent="  ")]
        text.append(_columns("", "A", "B", "B - A"))
        for name in _at(comparison.cutoff):
            names = (f"A: {name}", f"B: {name}", *(["B - A"] if name == comparison.score else []))
            text.append(_columns(name, *(_cell(row, column) for column in names)))
        time = row["round time, B / A"]
        text.append(_columns("over users, B - A", row["over users"] or "--"))
        text.append(_columns("round time, B / A", "--" if pd.isna(time) else f"{time:.3g}"))
        for name in _TO_TARGET:
            if f"A: {name}" in row:
                text.append(_columns(name, *(_cell(row, f"{side}: {name}") for side in "AB")))
    for side, runs in zip("AB", comparison.alone, strict=True):
        if runs:
            text += ["", f"{len(runs)} runs of {side} have no counterpart:"]
            text += [f"  {run.name}" for run in runs]
    return text


def _columns(name: str, *cells: str) -> str:
    return f"  {name:<19}{''.join(f'{cell:<25}' for cell in cells)}".rstrip()


def _cell(row: pd.Series, name: str) -> str:
    """A mean with the ends of its interval."""
    mean, low, high = (row.get(f"{name}{end}") for end in ("", " low", " high"))
    if pd.isna(mean):
        return "--"
    ends = "--" if pd.isna(low) else f"{low:.2f} to {high:.2f}"
    return f"{mean:{'+' if name == 'B - A' else ''}.2f} ({ends})"


def sections(comparison: Comparison) -> list[Section]:
    """The parts of the page."""
    drawn = chart(comparison)
    alone = [
        {"side": side, "run": str(run)}
        for side, runs in zip("AB", comparison.alone, strict=True)
        for run in runs
    ]
    parts = [
        Section(
            "What differs",
            "Settings that are one thing in all runs of A, and another in all of B.",
            comparison.settings,
        ),
        Section(
            "What it changed",
            "Test metrics over warm clients: those whose test item at least one client has among "
            "its train items. B - A is the difference of the means over seeds, with its 95 % "
            "interval by Welch where both have three runs or more. Over users: the same difference "
            "paired over users, averaged over seeds, with a 95 % bootstrap interval and the "
            "p-value of a sign-flip permutation test, where both have the same population. What it "
            "took to reach a target (--target) has no mean where a run did not get there.",
            comparison.table,
            charts=() if drawn is None else (drawn,),
        ),
    ]
    if alone:
        text = "Runs whose settings the other side has no run with. They are compared with nothing."
        parts.append(Section("Without a counterpart", text, pd.DataFrame(alone)))
    return parts


def chart(comparison: Comparison) -> Chart | None:
    """Accuracy of both over the first number that combinations differ in, None without one."""
    table, score = comparison.table, comparison.score
    x = seeds.along({n: tuple(dict.fromkeys(table[n])) for n in comparison.varied})
    if x is None or f"A: {score}" not in table:
        return None
    others = [n for n in comparison.varied if n != x]
    drawn = []
    for side, dash in (("A", 1), ("B", 0)):
        look = {"name": f"{side} {{}}", "dash": dash}
        drawn += seeds.series(table, f"{side}: {score}", x, others, **look)
    axes = seeds.axis_of(x, table[x].tolist()), Axis(f"test {score}", zero=True)
    return Chart(f"Accuracy of A and B over {x}.", [Panel(*axes, drawn)], size=(7.0, 4.0))
