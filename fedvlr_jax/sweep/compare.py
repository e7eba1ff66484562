"""Two sweeps, or two runs, against each other: what differs in settings, and what it changed."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fedvlr_jax import record
from fedvlr_jax.analysis import significance
from fedvlr_jax.config import Config, having, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.pages.charts import Axis, Chart, Line, of_lines
from fedvlr_jax.settings import FOLDER, Role, UnfitError, fitted
from fedvlr_jax.sweep import seeds

SCORE = "warm NDCG@50, %"
_METRICS = {SCORE: "warm/ndcg@50", "warm HR@50, %": "warm/hr@50"}
_NEEDED = (*(f"test/{name}" for name in _METRICS.values()), "timing/round_seconds_median")
_FINGERPRINT = "data_fingerprint"

# What a run is compared by; its layout changes no result.
_Key = tuple[Any, ...]


@dataclass(frozen=True)
class Held:
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
        alone: how many runs have no counterpart, of A and of B.
    """

    settings: pd.DataFrame
    table: pd.DataFrame
    varied: tuple[str, ...]
    alone: tuple[int, int]


def held(folder: str | Path) -> list[Held]:
    """The finished runs of a sweep's folder, or the one of a run's.

    Raises:
        UserError: there are none.
    """
    try:
        folder = fitted(Path, FOLDER, folder)
    except UnfitError as expected:
        raise UserError(f"{reprlib.repr(folder)}: expected {expected}") from None
    places = [folder] if (folder / "summary.json").is_file() else sorted(folder.glob("runs/*"))
    found = [
        Held(Config().flat() | record.settings(place), record.summary(place, _NEEDED), place)
        for place in places
        if (place / "summary.json").is_file() and (place / "config.json").is_file()
    ]
    if not found:
        raise UserError(
            f"{folder}: holds no finished run, expected the folder (--out) of experiments.sweep "
            "or experiments.train"
        )
    return found


def compared(first: Sequence[Held], second: Sequence[Held]) -> Comparison:
    """Every combination of `second` minus the same one of `first`.

    Runs are of one combination if they differ in nothing but the seed and what differs between
    the two as a whole. Where both have the same population, users are paired as well.

    Raises:
        UserError: no combination is in both.
    """
    without = ("seed", *having(Role.LAYOUT))
    names = [name for name in leaves() if name not in without]
    values = [{n: {r.settings.get(n) for r in runs} for n in names} for runs in (first, second)]
    apart = [
        n for n in names if all(len(v[n]) == 1 for v in values) and values[0][n] != values[1][n]
    ]
    varied = tuple(n for n in names if n not in apart and any(len(v[n]) > 1 for v in values))
    groups = [_groups(runs, varied) for runs in (first, second)]
    common = [key for key in groups[0] if key in groups[1]]
    if not common:
        raise UserError(
            "the two have no combination of settings in common, expected sweeps over the same "
            "values"
        )
    rows = [
        dict(zip(varied, key, strict=True)) | _row(groups[0][key], groups[1][key]) for key in common
    ]
    settings = [{"setting": n, "A": str(*values[0][n]), "B": str(*values[1][n])} for n in apart]
    alone = [sum(len(runs) for key, runs in g.items() if key not in common) for g in groups]
    return Comparison(pd.DataFrame(settings), pd.DataFrame(rows), varied, (alone[0], alone[1]))


def chart(found: Comparison) -> Chart | None:
    """Accuracy of both over the first number that combinations differ in, None without one."""
    numbers = [n for n in found.varied if pd.api.types.is_numeric_dtype(found.table[n])]
    if not numbers:
        return None
    x = "clients" if "clients" in numbers else numbers[0]
    others = [n for n in found.varied if n != x]
    groups = found.table.groupby(others, sort=False) if others else [((), found.table)]
    lines = []
    for style, (_, group) in enumerate(groups):
        group = group.sort_values(x)
        name = seeds.label(group.iloc[0], others)
        for side, dashed in (("A", True), ("B", False)):
            numbers = seeds.drawn(group, f"{side}: {SCORE}", x)
            lines.append(Line(f"{side} {name}".strip(), *numbers, style, dashed))
    axis = Axis(x, log=bool((found.table[x] > 0).all()))
    return of_lines(f"Accuracy of A and B over {x}.", axis, Axis(f"test {SCORE}", zero=True), lines)


def _groups(runs: Sequence[Held], varied: Sequence[str]) -> dict[_Key, list[Held]]:
    found: dict[_Key, list[Held]] = {}
    for run in runs:
        found.setdefault(tuple(run.settings.get(n) for n in varied), []).append(run)
    return found


def _row(first: Sequence[Held], second: Sequence[Held]) -> dict[str, Any]:
    row: dict[str, Any] = {"runs of A": len(first), "runs of B": len(second)}
    for name, metric in _METRICS.items():
        a, b = ([run.summary["test"][metric] for run in runs] for runs in (first, second))
        if None in a or None in b:
            continue
        for side, numbers in (("A", a), ("B", b)):
            row |= {f"{side}: {name}": float(np.mean(numbers))}
            low, high = seeds.interval(numbers, *seeds.bounds(f"test/{metric}")) or (None, None)
            row |= {f"{side}: {name} low": low, f"{side}: {name} high": high}
        if name == SCORE:
            row |= {"B - A": float(np.mean(b) - np.mean(a)), "B - A ci": _welch(a, b)}
    row["over users"] = _over_users(first, second)
    seconds = [
        float(np.median([run.summary["timing"]["round_seconds_median"] or np.nan for run in runs]))
        for runs in (first, second)
    ]
    row["round time, B / A"] = seconds[1] / seconds[0] if seconds[0] else np.nan
    return row


def _welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a difference of means (Welch 1947); None for less than three."""
    if min(len(first), len(second)) < 3 or np.ptp(first) + np.ptp(second) == 0:
        return None
    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    return float(interval.high - interval.low) / 2


def _over_users(first: Sequence[Held], second: Sequence[Held]) -> str | None:
    """The difference of NDCG@50 paired over warm users, in words; None for other populations."""
    if len({run.settings.get(_FINGERPRINT) for run in (*first, *second)}) > 1:
        return None
    kept = [
        [record.per_user(run.folder, ("user", "rank", "warm")) for run in runs]
        for runs in (first, second)
    ]
    users = kept[0][0]["user"]
    if any(not np.array_equal(users, arrays["user"]) for runs in kept for arrays in runs):
        return None
    warm = kept[0][0]["warm"]
    if any(not np.array_equal(warm, arrays["warm"]) for runs in kept for arrays in runs):
        return None
    ranks = [np.stack([arrays["rank"][arrays["warm"]] for arrays in runs]) for runs in kept]
    if not ranks[0].size:
        return None
    found = significance.paired(*(significance.gains(r) for r in reversed(ranks)))
    p = "p < 0.001" if found.p_value < 1e-3 else f"p = {found.p_value:.2g}"
    return f"{found.mean:+.2f} ({found.low:.2f} to {found.high:.2f}), {p}"
