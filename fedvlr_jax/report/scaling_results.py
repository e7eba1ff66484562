"""A study of the number of clients: what every run cost and came to, fitted laws, and sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import record, targets
from fedvlr_jax.analysis import metrics, trends
from fedvlr_jax.analysis.trends import Curve, PowerLaw, SaturatingLaw
from fedvlr_jax.config import Config
from fedvlr_jax.report import seeds
from fedvlr_jax.runs.declare import Axes
from fedvlr_jax.runs.ledger import FINISHED, Row

BEYOND = 10  # times the largest number of clients: as far as a law is followed
WITHIN, _AHEAD = 24, 8  # points of a curve, from the smallest number of clients to the largest
_BENT = 0.01  # p-value below which a law is said not to hold
_CUTOFF = 50
POWER, SATURATING = "a * clients^b", "a - b * clients^-c"


@dataclass(frozen=True)
class Quantity:
    """What is fitted.

    Attributes:
        key: of study.json, and the column of the table of runs.
        name: at the beginning of a sentence.
        unit: of what people read.
        scale: from what is kept to that unit.
        verbs: for what grows, and for what falls.
    """

    key: str
    name: str
    unit: str
    scale: float = 1.0
    verbs: tuple[str, str] = ("grows", "falls")

    @property
    def least(self) -> str:
        """The column of the lower end of what it may be."""
        return f"{self.key}_at_least"


_SEVERAL = ("grow", "fall")
TIME = Quantity("round_seconds", "Time per round", "s")
ROUNDS = Quantity("rounds_to_target", "Rounds to the target", "rounds", verbs=_SEVERAL)
BYTES = Quantity("bytes_to_target", "Bytes to the target", "MB", 1e-6, _SEVERAL)
SIMULATED = Quantity("simulated_seconds_to_target", "Simulated time to the target", "s")
ACCURACY = Quantity("test_ndcg@50", "Final accuracy", "%")
QUANTITIES = (TIME, ROUNDS, BYTES, SIMULATED, ACCURACY)
ERROR = "test_ndcg@50_error"  # of the mean over a run's users
# Of lines of metrics.jsonl, summed, by what they are called in the table.
_COSTS = {
    ROUNDS.key: ("round",),
    BYTES.key: ("download_bytes", "upload_bytes"),
    "client_updates_to_target": ("client_updates",),
    "seconds_to_target": ("seconds",),
    SIMULATED.key: ("simulated_seconds",),  # where devices have speeds
}


@dataclass(frozen=True)
class Fit:
    """What came of a quantity at one combination of what is swept beside clients and seed.

    Attributes:
        quantity: that is fitted.
        settings: the combination.
        law: None where there are too few runs for one.
        at: numbers of clients of the law's curve: `WITHIN` from the smallest to the largest of the
            runs, then as far as the law is followed.
        sizes: numbers of clients of runs, in order.
        values: of the runs, in order of the table; what was spent where there is no more known.
        n_censored: runs that did not reach the target.
        n_between: runs that did between two evaluations with rounds in between.
        same_users: whether all runs of a number of clients are of one population.
    """

    quantity: Quantity
    settings: dict[str, Any]
    law: PowerLaw | SaturatingLaw | None
    at: tuple[float, ...]
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    n_censored: int
    n_between: int
    same_users: bool

    @property
    def verdict(self) -> str:
        """Whether there is a trend."""
        return trends.UNKNOWN if self.law is None else self.law.verdict

    @property
    def is_constant(self) -> bool:
        """Whether all runs have the same, so that there is nothing to fit."""
        known = not self.n_censored and not self.n_between
        return bool(self.values) and known and len(set(self.values)) == 1


def table(
    rows: Mapping[str, Row],
    configs: Mapping[str, Config],
    axes: Axes,
    out: Path,
    target: targets.Target,
) -> pd.DataFrame:
    """A row per finished run: what is swept, its costs to the target, and its accuracy.

    A share of the best value is one of the run's own best: it tells how soon a run is there, and
    not how good it is. Costs are None where the target was not reached; `..._at_least` is then what
    was spent. It is also the lower end where rounds between two evaluations were not looked at: the
    first round after the last evaluation without the value.

    Args:
        rows: how runs ended.
        configs: of all runs, by name.
        axes: what they differ in.
        out: the study's folder.
        target: to reach.
    """
    found = [
        _run(name, config, axes, rows[name].content, out / record.RUNS_FOLDER / name, target)
        for name, config in configs.items()
        if name in rows and rows[name].status == FINISHED
    ]
    return pd.DataFrame(found)


def _run(
    name: str,
    config: Config,
    axes: Axes,
    summary: Mapping[str, Any],
    folder: Path,
    target: targets.Target,
) -> dict[str, Any]:
    lines = record.evaluations(folder)
    goal = target.goal(target.best(lines))
    ranks = record.per_user(folder)["rank"]
    gains, known = 100 * metrics.gains(ranks, _CUTOFF), ranks >= 0
    flat = config.flat()
    reached = targets.costs(target, lines, goal)["reached"]
    row = {"run": name} | {setting: flat[setting] for setting in ("clients", *axes)}
    row |= {"data_seed": flat["data_seed"], "goal": goal, "reached": reached}
    row[TIME.key] = row[TIME.least] = summary["timing"]["round_seconds_median"]
    for key, columns in _COSTS.items():
        if lines and all(line.get(column) is not None for line in lines for column in columns):
            row |= _cost(key, columns, target.metric, lines, goal)
    row[ACCURACY.key] = float(gains[known].mean()) if known.any() else None
    row[ERROR] = trends.mean_error(gains, known)
    row |= {"best_round": summary["best_round"], "rounds_done": summary["rounds_done"]}
    return row | {"best_is_last": summary.get("best_is_last")}


def _cost(
    key: str,
    columns: Sequence[str],
    metric: str,
    lines: Sequence[Mapping[str, Any]],
    goal: float | None,
) -> dict[str, Any]:
    """What a run took to its goal, and the least that it may have taken."""
    spent, rounds = [0.0], [0]
    for line in lines:
        spent.append(sum(float(line[column]) for column in columns))
        rounds.append(line["round"])
        value = line.get(metric)
        if goal is not None and value is not None and value >= goal:
            share = 1 / max(rounds[-1] - rounds[-2], 1)
            # Of one round, the sum would differ in its last digit.
            least = spent[-1] if share == 1 else spent[-2] + share * (spent[-1] - spent[-2])
            return {key: spent[-1], f"{key}_at_least": least}
    return {key: None, f"{key}_at_least": spent[-1]}


def fits(runs: pd.DataFrame, axes: Axes, own_populations: bool) -> list[Fit]:
    """The law of every quantity that runs have, for every combination of what is swept.

    Args:
        runs: the `table`.
        axes: what they differ in.
        own_populations: whether every run has a population of its own.
    """
    others = [name for name in seeds.varied(axes) if name != "clients"]
    found = []
    for quantity in QUANTITIES:
        if quantity.key in runs:
            for settings, mine in seeds.grouped(runs, others):
                found.append(_fit(quantity, settings, mine, not own_populations))
    return found


def _fit(quantity: Quantity, settings: dict[str, Any], runs: pd.DataFrame, same_users: bool) -> Fit:
    of_accuracy = quantity == ACCURACY
    runs = runs[runs[quantity.key if of_accuracy else quantity.least].notna()]
    clients = runs["clients"].to_numpy(int)
    values = runs[quantity.key].to_numpy(float)
    sizes = np.unique(clients)
    at = np.zeros(0)
    if len(sizes):
        within = np.geomspace(sizes[0], sizes[-1], WITHIN)
        at = np.append(within, np.geomspace(sizes[-1], BEYOND * sizes[-1], _AHEAD + 1)[1:])
    law, least, high = None, values, np.nan_to_num(values, nan=math.inf)
    if of_accuracy:
        law = trends.saturating_law(clients, values, runs[ERROR].to_numpy(float), at, same_users)
    else:
        least = runs[quantity.least].to_numpy(float)
        if (least > 0).all():
            law = trends.power_law(clients, least, high, at)
    return Fit(
        quantity=quantity,
        settings=settings,
        law=law,
        at=tuple(at.tolist()),
        sizes=tuple(sizes.tolist()),
        values=tuple(np.where(np.isfinite(high), high, least).tolist()),
        n_censored=int(np.isinf(high).sum()),
        n_between=int((np.isfinite(high) & (least < high)).sum()),
        same_users=same_users,
    )


def as_json(fit: Fit) -> dict[str, Any]:
    """A fit as study.json has it; None stands for what there is not."""
    law, last = fit.law, -1
    entry: dict[str, Any] = {
        "quantity": fit.quantity.key,
        "settings": fit.settings,
        "form": SATURATING if fit.quantity == ACCURACY else POWER,
        "exponent": None,
        "interval": None,
        "verdict": fit.verdict,
        "coefficients": None,
        "n_runs": len(fit.values),
        "n_censored": fit.n_censored,
        "n_between_evaluations": fit.n_between,
        "extrapolation": None,
    }
    if law is None:
        return entry
    entry |= {"exponent": law.exponent, "interval": _pair(law.interval)}
    if isinstance(law, SaturatingLaw):
        entry["coefficients"] = {"a": law.limit, "b": law.distance, "c": law.exponent}
        entry["change"] = {
            "clients": [fit.sizes[0], fit.sizes[-1]],
            "value": law.change,
            "interval": _pair(law.change_interval),
        }
    else:
        entry["coefficients"] = {"a": law.coefficient, "b": law.exponent}
        entry["lack_of_fit_p_value"] = law.bends
    curve = within_limits(fit)
    entry["extrapolation"] = {
        "clients": round(fit.at[last]),
        "value": float(curve.value[last]),
        "interval": _pair((float(curve.low[last]), float(curve.high[last]))),
    }
    return entry


def within_limits(fit: Fit) -> Curve:
    """A law's curve; accuracy is from 0 to 100 %, and no run has less than a round."""
    least = 1.0 if fit.quantity == ROUNDS else 0.0
    most = 100.0 if fit.quantity == ACCURACY else math.inf
    curve = fit.law.curve
    return Curve(*(np.clip(part, least, most) for part in (curve.value, curve.low, curve.high)))


def _pair(interval: tuple[float, float]) -> list[float] | None:
    return None if any(map(math.isnan, interval)) else list(interval)


def sentence(fit: Fit) -> str:
    """The answer for one quantity, in words, with the numbers of `as_json`."""
    quantity, law = fit.quantity, fit.law
    told = ", ".join(f"{name} {seeds.label(fit.settings, [name])}" for name in fit.settings)
    here = f" ({told})" if told else ""
    if fit.is_constant:
        text = (
            f"{quantity.name}{here}: {_shown(quantity, fit.values[0])} in each of "
            f"{len(fit.values)} runs, so {trends.UNKNOWN}."
        )
    elif law is None:
        text = f"{quantity.name}{here}: {trends.UNKNOWN}, as {_why_not(fit)}."
    else:
        text = _of_law(fit, law, here)
    notes = []
    if fit.n_censored:
        notes.append(
            f"{fit.n_censored} of {len(fit.values)} runs did not reach the target and count as "
            "taking more than what they spent."
        )
    if fit.n_between:
        notes.append(
            f"{fit.n_between} of {len(fit.values)} runs reached it after rounds without an "
            "evaluation and count as an interval from the first of these rounds on."
        )
    if isinstance(law, PowerLaw) and law.bends is not None and law.bends < _BENT:
        notes.append(
            f"The means bend away from a power law ({_p_value(law.bends)}), so it is a rough "
            "description, and beyond the runs a guess."
        )
    return " ".join([text, *notes])


def _why_not(fit: Fit) -> str:
    """Why there is no law."""
    if fit.quantity == ACCURACY and len(fit.values) and len(fit.sizes) < 3:
        return "its law needs runs of three numbers of clients"
    return f"too few runs {'reached the target' if fit.n_censored else 'finished'} to fit a law"


def _of_law(fit: Fit, law: PowerLaw | SaturatingLaw, here: str) -> str:
    quantity, curve = fit.quantity, within_limits(fit)
    grows, falls = quantity.verbs
    verb = {trends.GROWS: grows, trends.FALLS: falls}.get(law.verdict)
    if isinstance(law, SaturatingLaw):
        change = f"{law.change:+z.2f} points{_ends(law.change_interval, '{:+z.2f}')}"
        law_said = f"as a - b N^-c with c = {law.exponent:.2f}{_ends(law.interval)}"
        if law.has_limit:
            law_said += f" and a = {law.limit:.2f} %"
        else:
            law_said += ", of which too little is known to tell a limit"
    else:
        change = ""
        law_said = f"as N^{law.exponent:z.2f}{_ends(law.interval)}"
    span = (
        f"from {_shown(quantity, curve.value[0])} at {fit.sizes[0]:,} clients to "
        f"{_shown(quantity, curve.value[WITHIN - 1])} at {fit.sizes[-1]:,}"
    )
    span += f", {change}" if change else ""
    if verb is None:
        begin = f"{quantity.name}{here}: {trends.UNKNOWN} over the number of clients N"
        begin += f"; fitted {law_said}, {span}"
    else:
        begin = f"{quantity.name}{here} {verb} with the number of clients N {law_said}, {span}"
    ends = _ends((float(curve.low[-1]), float(curve.high[-1])), quantity=quantity)
    beyond = (
        f"At {round(fit.at[-1]):,} clients the law has {_shown(quantity, curve.value[-1])}{ends}"
    )
    return f"{begin} ({len(fit.values)} runs). {beyond}."


def _shown(quantity: Quantity, value: float) -> str:
    unit = quantity.unit.removesuffix("s") if value == 1 else quantity.unit
    return f"{number(quantity.scale * value)} {unit or quantity.unit}"


def number(value: float) -> str:
    """Three digits, and all of a whole number."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ends(
    interval: tuple[float, float], form: str = "{:z.2f}", quantity: Quantity | None = None
) -> str:
    """An interval in brackets, nothing where there is none."""
    if any(map(math.isnan, interval)):
        return " (without an interval, as no two runs have the same number of clients)"
    if quantity is not None:
        low, high = (number(quantity.scale * end) for end in interval)
    else:
        low, high = (form.format(end) for end in interval)
    return f" (95 % interval {low} to {high})"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 1e-3 else f"p = {p:.2g}"


def study(fitted: Sequence[Fit], runs: pd.DataFrame, target: str) -> dict[str, Any]:
    """The content of study.json."""
    columns = [name for name in runs if name != "best_is_last"]
    lines = runs[columns].astype(object)
    return {
        "target": target,
        "share_of": "every run's own best value" if target.endswith("max") else None,
        "fits": [as_json(fit) for fit in fitted],
        "rows": lines.where(lines.notna(), None).to_dict("records"),
    }
