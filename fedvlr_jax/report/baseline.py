"""Whether a setting helps: runs against those that differ in it alone, paired over users."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import record
from fedvlr_jax.analysis.statistics import Difference, gains, paired
from fedvlr_jax.config import having
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import seeds
from fedvlr_jax.report.chart import GREY, Axis, Chart, Panel, Series
from fedvlr_jax.report.sections import Section
from fedvlr_jax.runs.declare import SWEEP, Axes
from fedvlr_jax.runs.ledger import FINISHED
from fedvlr_jax.settings import Role

# Where runs differ in one of these, they are of other populations or evaluate other clients.
OF_POPULATIONS = (*having(Role.DATA), "eval_clients")
_NUMBERS = tuple(field.name for field in dataclasses.fields(Difference))
_EXPECTED = "expected a setting and one of its values in the sweep, like --baseline=variant=mlp"


@dataclass(frozen=True)
class Baseline:
    """The value of a setting that its other values are compared with."""

    setting: str
    value: Any

    def __str__(self) -> str:
        """As it is written after --baseline."""
        return f"{self.setting}={self.label}"

    @property
    def label(self) -> str:
        """The value as text."""
        return seeds.label(vars(self), ["value"])

    def others(self, axes: Axes) -> list[str]:
        """What runs differ in beside the setting and the seed."""
        return [name for name in seeds.varied(axes) if name != self.setting]


def read(text: str, axes: Axes, evaluated: int) -> Baseline:
    """The baseline that a flag declares.

    Args:
        text: of the flag.
        axes: of the sweep.
        evaluated: `--eval_clients`.

    Raises:
        UserError: no setting with one of its values in the sweep, or users could not be paired.
    """
    where = f"--baseline={text}"
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{where}: {_EXPECTED}")
    SWEEP.check_known(where, name, shown=lambda close: f"--baseline={close}=...")
    swept = [n for n in seeds.varied(axes) if n not in OF_POPULATIONS]
    if name == "seed":
        raise UserError(f"{where}: results are means over seeds, {_EXPECTED}")
    if name in OF_POPULATIONS:
        raise UserError(
            f"{where}: runs that differ in {name} are of different users, who cannot be paired, "
            "expected a setting that leaves users as they are"
        )
    if name not in swept:
        others = f"one of {', '.join(swept)}" if swept else f"a sweep of it, --sweep={name}=..."
        raise UserError(f"{where}: {name} has one value in this sweep, expected {others}")
    values = [v for v in axes[name] if _is(v, value)]
    if not values:
        known = ", ".join(seeds.label({name: v}, [name]) for v in axes[name])
        raise UserError(f"{where}: no run has this value, expected one of {known}")
    if evaluated and len(axes.get("seed", ())) > 1:
        raise UserError(
            f"{where}: with --eval_clients={evaluated} every seed evaluates other users, who "
            "cannot be paired, expected --eval_clients=0 or one seed"
        )
    return Baseline(name, values[0])


def _is(value: Any, text: str) -> bool:
    try:
        return value == text or (not isinstance(value, str) and value == float(text))
    except ValueError:
        return False


def over_users(
    first: Sequence[Path], second: Sequence[Path], cutoff: int = 50
) -> Difference | None:
    """NDCG in percent of `first` minus `second`, paired over warm users, averaged over runs.

    Args:
        first: folders of finished runs.
        second: those to compare with.
        cutoff: K of the NDCG.

    Returns:
        None where not all runs have the same data, users and warm users.

    Raises:
        UserError: a file is not a run's.
    """
    if len({record.settings(run).get("data_fingerprint") for run in (*first, *second)}) > 1:
        return None
    sides = [
        [record.per_user(run, ("user", "rank", "warm")) for run in runs] for runs in (first, second)
    ]
    one = sides[0][0]
    for arrays in (*sides[0], *sides[1]):
        if any(not np.array_equal(one[name], arrays[name]) for name in ("user", "warm")):
            return None
    ranks = (np.stack([arrays["rank"][arrays["warm"]] for arrays in side]) for side in sides)
    return paired(*(gains(side, cutoff) for side in ranks))


def differences(
    table: pd.DataFrame, axes: Axes, baseline: Baseline, folder: Path, cutoff: int = 50
) -> pd.DataFrame:
    """Every combination minus the one that differs from it in the baseline's setting alone.

    Args:
        table: of runs, in the order of the axes.
        folder: of the runs' folders.
        cutoff: K of the NDCG.

    Returns:
        What is varied; the `difference` in words; `runs`, how many seeds both have finished; and
        the difference of NDCG in percent over warm users, as in `Difference`, None where users are
        not the same. Combinations without a finished counterpart are left out.
    """
    names = seeds.varied(axes)
    finished = table.loc[table["status"] == FINISHED, [*names, "seed", "run"]]
    is_baseline = finished[baseline.setting] == baseline.value
    counterparts = finished[is_baseline].drop(columns=baseline.setting)
    pairs = finished[~is_baseline].merge(
        counterparts, on=[*baseline.others(axes), "seed"], suffixes=("", " minus")
    )
    rows = []
    for values, runs in seeds.grouped(pairs, names):
        sides = ([folder / run for run in runs[side]] for side in ("run", "run minus"))
        difference = over_users(*sides, cutoff)
        mine = seeds.label(values, [baseline.setting])
        row = values | {"difference": f"{mine} - {baseline.label}", "runs": len(runs)}
        rows.append(row | (vars(difference) if difference else {"mean": None, "users": 0}))
    return pd.DataFrame(rows, columns=[*names, "difference", "runs", *_NUMBERS])


def sentences(table: pd.DataFrame, axes: Axes, baseline: Baseline, cutoff: int = 50) -> list[str]:
    """The `differences` in words."""
    if table.empty:
        return [f"compared with {baseline}: no run has a counterpart"]
    lines = [
        f"compared with {baseline}, NDCG@{cutoff} in points of percent over warm users, mean "
        "(95 % interval):"
    ]
    for _, row in table.iterrows():
        result = "not comparable, as users are not the same or none of them is warm"
        if row["users"]:
            difference = Difference(**row[list(_NUMBERS)])
            clear = "higher" if row["low"] > 0 else "lower" if row["high"] < 0 else ""
            result = f"{difference} over {row['users']:,} users, {clear or 'no clear difference'}"
        others = ", ".join(f"{n} {seeds.label(row, [n])}" for n in baseline.others(axes))
        lines.append(f"{row['difference']}{f' at {others}' if others else ''}: {result}")
    return lines


def section(table: pd.DataFrame, axes: Axes, baseline: Baseline, cutoff: int = 50) -> Section:
    """A part of a sweep's report, of its `differences`."""
    text = (
        f"NDCG@{cutoff} in points of percent of every combination minus the one that differs from "
        f"it in {baseline} alone: over warm test users, averaged over the seeds that both have "
        "finished and paired by user, with the 95 % interval over users (bootstrap) and the "
        "p-value of a sign-flip permutation test. The numbers are in baseline.csv."
    )
    text += "".join(f"\n\n{sentence}." for sentence in sentences(table, axes, baseline, cutoff)[1:])
    table = table.rename(columns={"low": "mean low", "high": "mean high"})
    known = table[table["users"] > 0]
    charts = () if known.empty else (_chart(known, axes, baseline, cutoff),)
    return Section(f"Compared with {baseline}", text, table, charts)


def _chart(table: pd.DataFrame, axes: Axes, baseline: Baseline, cutoff: int) -> Chart:
    others = baseline.others(axes)
    x, parts = seeds.along({n: axes[n] for n in others}), ["difference", *others]
    if x is None:
        names = seeds.labels(table, parts)
        across, ends = Axis("", labels=names), [-0.5, len(names) - 0.5]
        look = {"places": names, "name": "difference", "kind": "points"}
        lines = seeds.series(table.assign(_name=names), "mean", "_name", **look)
    else:
        across, ends = seeds.axis_of(x, axes[x], x == "clients"), [min(axes[x]), max(axes[x])]
        lines = seeds.series(table, "mean", x, [n for n in parts if n != x])
    zero = Series("no difference", ends, [0.0, 0.0], style=GREY, dash=1)
    y = Axis(f"NDCG@{cutoff} minus that of\n{baseline} (points)", zero=True)
    other = f"other values of {baseline.setting} and {baseline}"
    summary = f"Difference in NDCG@{cutoff} between {other}."
    return Chart(summary, [Panel(across, y, [*lines, zero])], size=(7.0, 4.0))
