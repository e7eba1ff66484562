"""A search as a picture: the score over each searched setting, and over the trials."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedvlr_jax import drawing
from fedvlr_jax.search.space import Choice, Range, Space
from fedvlr_jax.search.trials import COMPLETE, FAILED, PRUNED, Trial, ended, ranked

_SCORE = "validation NDCG@50,\nwarm clients (%)"
_PANEL = (4.0, 3.3)  # inches
_MARGIN = 0.06  # of what an axis shows
_SPREAD = 0.5  # of the room of a value, over which trials with that value stand
# Colours of drawing.py; shapes differ, too.
_STYLES = {
    COMPLETE: {"color": drawing.COLOURS[0], "marker": "o", "s": 34},
    PRUNED: {"color": drawing.COLOURS[7], "marker": "v", "s": 26},
    FAILED: {"color": drawing.COLOURS[2], "marker": "x", "s": 34},
}
_BEST = {"color": drawing.COLOURS[3], "marker": "*", "s": 190, "edgecolor": "black", "zorder": 4}


def plot(trials: Sequence[Trial], space: Space, path: Path) -> None:
    """Draw the score over every searched setting and over trials, with the best one so far.

    What has failed has no score and stands at the lower edge. Trials with one value of a list stand
    side by side in their order. Nothing is drawn before a trial has ended.

    Args:
        trials: of the search.
        space: what is searched.
        path: of the PNG, in a folder that is there.
    """
    trials = ended(trials)
    if not trials:
        return
    figure, axes = drawing.panels(len(space) + 1, _PANEL, share_y=True)
    known = [t.outcome.value for t in trials if t.outcome.value is not None] or [0.0, 1.0]
    margin = _MARGIN * (max(known) - min(known)) or 1.0
    scores = [min(known) if t.outcome.value is None else t.outcome.value for t in trials]
    for axis, (name, values) in zip(axes, space.items(), strict=False):
        _draw(axis, trials, _places(values, name, trials), scores)
        axis.set_xlabel(name)
        _scale(axis, values)
    over = axes[-1]
    _draw(over, trials, [float(trial.number) for trial in trials], scores)
    _draw_best_so_far(over, trials)
    over.set_xlabel("trial")
    over.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    for axis in axes[::3]:  # those at the left edge
        axis.set_ylabel(_SCORE)
    axes[0].set_ylim(min(known) - margin, max(known) + 1.5 * margin)
    handles, labels = over.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9
    )
    drawing.save(figure, path)


def _draw(
    axis: Axes, trials: Sequence[Trial], places: Sequence[float], scores: Sequence[float]
) -> None:
    """A dot for every trial, in the style of its state; the best one is marked."""
    for state, style in _STYLES.items():
        chosen = [k for k, trial in enumerate(trials) if trial.outcome.state == state]
        if chosen:
            places_of, scores_of = ([all_[k] for k in chosen] for all_ in (places, scores))
            axis.scatter(places_of, scores_of, label=state, **style)
    for best in ranked(trials)[:1]:
        k = trials.index(best)
        axis.scatter([places[k]], [scores[k]], label="best", **_BEST)
    axis.grid(alpha=0.3)


def _draw_best_so_far(axis: Axes, trials: Sequence[Trial]) -> None:
    numbers, best = [], []
    for k, trial in enumerate(trials):
        for leader in ranked(trials[: k + 1])[:1]:
            numbers.append(trial.number)
            best.append(leader.outcome.value)
    axis.step(numbers, best, where="post", color=drawing.COLOURS[4], label="best so far")


def _places(values: Range | Choice, name: str, trials: Sequence[Trial]) -> list[float]:
    """Where every trial stands from left to right."""
    if isinstance(values, Range):
        return [float(trial.params[name]) for trial in trials]
    shift = _SPREAD / (len(trials) + 1)
    return [
        values.values.index(trial.params[name]) - _SPREAD / 2 + shift * (k + 1)
        for k, trial in enumerate(trials)
    ]


def _scale(axis: Axes, values: Range | Choice) -> None:
    """Show all that is searched, also where nothing has been tried."""
    if isinstance(values, Choice):
        names = [str(value) for value in values.values]
        crowded = len(names) > 6 or sum(map(len, names)) > 30
        turned = {"rotation": 30, "ha": "right"} if crowded else {}
        axis.set_xticks(range(len(names)), names, **turned)
        axis.set_xlim(-0.5, len(names) - 0.5)
        return
    first, last = values.first, values.last
    if not values.log:
        margin = _MARGIN * (last - first)
        axis.set_xlim(first - margin, last + margin)
        return
    factor = (last / first) ** _MARGIN
    axis.set_xscale("log")
    axis.set_xlim(first / factor, last * factor)
    # Where the range is short, powers of ten alone would be too few.
    between = (1.0,) if last / first > 100 else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=between))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
