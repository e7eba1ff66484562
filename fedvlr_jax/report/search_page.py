"""What a search has found: tables of its trials, the best settings, a chart, a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fedvlr_jax import files
from fedvlr_jax.analysis import metrics
from fedvlr_jax.analysis.statistics import spread
from fedvlr_jax.config import defaults_beside, leaves
from fedvlr_jax.report.chart import GREY, Axis, Chart, Panel, Series, side_by_side
from fedvlr_jax.report.sections import Section
from fedvlr_jax.report.sweep_page import command
from fedvlr_jax.runs.space import Choice, Range, Search, Space
from fedvlr_jax.runs.trials import COMPLETE, FAILED, PRUNED, Trial, ended, ranked

MEASURED = "seconds"  # the column that another day would fill differently
# These a sweep and a single run take other values of where nothing is said.
_ALWAYS_SAID = ("clients", "rounds")
_STYLES = {COMPLETE: 0, PRUNED: GREY, FAILED: 1}
_BEST, _BEST_SO_FAR = 5, 2  # styles
_MARGIN = 0.06  # of what an axis shows
_SPREAD = 0.5  # of the room of a value, over which trials with that value stand


def results(trials: Sequence[Trial], space: Space) -> pd.DataFrame:
    """A row per trial that has ended: number, state, value, a column per searched setting, rest.

    Columns are those of `trials.Outcome`, in its units.
    """
    columns = ["number", "state", "value", *space, "best_round", MEASURED, "reason"]
    rows = [
        {"number": trial.number, **vars(trial.outcome), **trial.params} for trial in ended(trials)
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"best_round": "Int64"})


def best_table(
    trials: Sequence[Trial], space: Space, number: int, cutoff: int = 50
) -> pd.DataFrame:
    """The best trials, at most `number` of them: by validation alone, NDCG at a `cutoff`."""
    rows = [
        {
            "trial": trial.number,
            **{name: trial.params[name] for name in space},
            f"valid NDCG@{cutoff} %": trial.outcome.value,
            "best round": trial.outcome.best_round,
        }
        for trial in ranked(trials)[:number]
    ]
    return pd.DataFrame(rows)


def test_line(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Test metrics of warm clients in percent, the mean and standard deviation over runs.

    Args:
        summaries: of the runs of one trial, as in summary.json.
    """
    parts = []
    for name in metrics.told(summaries[0]["test"]):
        values = [summary["test"][f"warm/{name}"] for summary in summaries]
        mean, deviation = spread(name, values).values()
        text = "--" if mean is None else f"{mean:.2f}"
        parts.append(f"{name} {text}" + ("" if deviation is None else f" ({deviation:.2f})"))
    return "  ".join(parts)


def settings(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial's first run: those given, those searched, and no other default.

    Args:
        search: that the trial is of.
        params: the trial's.
    """
    config = search.config(params)
    flat, default = config.flat(), defaults_beside(config)
    said = {*_ALWAYS_SAID, *search.settings, *search.space}
    return {
        name: flat[name]
        for name in leaves()
        if flat[name] is not None and (name in said or flat[name] != default[name])
    }


def write_best(search: Search, params: Mapping[str, Any], path: Path) -> None:
    """Write a trial's settings as YAML that `experiments.sweep --config` takes."""
    best = settings(search, params)
    seeds = search.seeds
    if seeds is not None and len(seeds) > 1:
        best = {name: value for name, value in best.items() if name != "seed"}
        best["seeds"] = len(seeds)
    files.write_text(path, yaml.safe_dump(best, sort_keys=False))


def sections(search: Search, trials: Sequence[Trial]) -> list[Section]:
    """The parts of the page, of a search in which a trial has ended."""
    parts, k = [], search.cutoff
    if best := ranked(trials)[:1]:
        text = (
            f"Trials that are complete, by the validation NDCG@{k} of warm clients of their best "
            "round, in percent. The best of many has a score that is too good, as it was chosen "
            "for it: compare test metrics. This trains the best one again:\n\n"
            f"{command(settings(search, best[0].params))}"
        )
        table = best_table(trials, search.space, 10, k)
        parts.append(Section("The best by validation", text, table))
    text = (
        "The score over each searched setting, and over trials. Pruned trials stand at the best "
        "score that they had reached, failed ones at the lower edge."
    )
    parts.append(Section("What was tried", text, charts=(chart(trials, search.space, k),)))
    shared = [{"setting": name, "value": str(value)} for name, value in search.settings.items()]
    parts.append(
        Section("Settings of all trials", "All others have defaults.", pd.DataFrame(shared))
    )
    table = results(trials, search.space).rename(columns={"value": f"valid NDCG@{k}, %"})
    return [*parts, Section("Every trial", "This table is trials.csv.", table)]


def chart(trials: Sequence[Trial], space: Space, cutoff: int = 50) -> Chart:
    """The score over every searched setting and over trials, with the best one so far.

    What has failed has no score and stands at the lower edge. Trials with one value of a list stand
    side by side in their order.

    Args:
        trials: of the search, one of which has ended.
        space: what is searched.
        cutoff: K of the score.
    """
    trials = ended(trials)
    known = [t.outcome.value for t in trials if t.outcome.value is not None] or [0.0, 1.0]
    margin = _MARGIN * (max(known) - min(known)) or 1.0
    scores = [min(known) if t.outcome.value is None else t.outcome.value for t in trials]
    limits = (min(known) - margin, max(known) + 1.5 * margin)
    y = Axis(f"validation NDCG@{cutoff},\nwarm clients (%)", limits=limits)
    panels = [
        Panel(_axis(name, values), y, _points(trials, _places(values, name, trials), scores))
        for name, values in space.items()
    ]
    leaders = [ranked(trials[: k + 1])[:1] for k in range(len(trials))]
    numbers = [float(trial.number) for trial in trials]
    over = _points(trials, numbers, scores)
    first = sum(not of for of in leaders)  # those before the first that is complete
    if first < len(trials):
        best = [of[0].outcome.value for of in leaders[first:]]
        over.append(Series("best so far", numbers[first:], best, style=_BEST_SO_FAR, kind="steps"))
    panels.append(Panel(Axis("trial", whole=True), y, over))
    return Chart(f"Validation NDCG@{cutoff} over every searched setting, and over trials.", panels)


def _points(
    trials: Sequence[Trial], places: Sequence[float], scores: Sequence[float]
) -> list[Series]:
    """A dot for every trial, in the style of its state; the best one is marked."""
    chosen = {
        state: [k for k, trial in enumerate(trials) if trial.outcome.state == state]
        for state in _STYLES
    } | {"best": [trials.index(best) for best in ranked(trials)[:1]]}
    return [
        Series(
            state,
            [places[k] for k in rows],
            [scores[k] for k in rows],
            style=_STYLES.get(state, _BEST),
            kind="points" if state in _STYLES else "stars",
        )
        for state, rows in chosen.items()
        if rows
    ]


def _places(values: Range | Choice, name: str, trials: Sequence[Trial]) -> list[float]:
    """Where every trial stands from left to right."""
    if isinstance(values, Range):
        return [float(trial.params[name]) for trial in trials]
    gap = _SPREAD / (len(trials) + 1)
    return [
        values.values.index(trial.params[name]) + side_by_side(k, len(trials), gap)
        for k, trial in enumerate(trials)
    ]


def _axis(name: str, values: Range | Choice) -> Axis:
    """All that is searched is in sight, also where nothing has been tried."""
    if isinstance(values, Choice):
        return Axis(name, labels=[str(value) for value in values.values])
    first, last = values.first, values.last
    if values.log:
        factor = (last / first) ** _MARGIN
        return Axis(name, log=True, limits=(first / factor, last * factor))
    margin = _MARGIN * (last - first)
    return Axis(name, limits=(first - margin, last + margin))
