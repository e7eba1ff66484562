"""Pictures of a study in panels: one per recommender, with a line per variant."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from fedvlr_jax import drawing
from fedvlr_jax.names import VARIANTS
from fedvlr_jax.study import figures

_GROUP_SCORE = "ndcg@50"
_APART = 0.07  # of neighbouring lines, in groups


def curves(curves: pd.DataFrame, path: Path) -> None:
    """Validation NDCG@50 of warm users, in percent, over rounds: mean and deviation over seeds.

    A round that not every seed of a variant has reached is left out.

    Args:
        curves: long: `recommender`, `variant`, `seed`, `round`, `warm/ndcg@50`.
        path: of the PNG, in a folder that is there.
    """
    recommenders = list(dict.fromkeys(curves["recommender"]))
    variants = figures.ordered(curves["variant"], VARIANTS)
    figure, axes = drawing.panels(len(recommenders), (4.0, 3.4), share_y=True)
    for axis, recommender in zip(axes, recommenders, strict=True):
        mine = curves[curves["recommender"] == recommender]
        for number, variant in enumerate(variants):
            rows = mine[mine["variant"] == variant]
            # As numbers: where nobody is warm, no round has a score.
            rows = rows.assign(score=figures.numbers(rows["warm/ndcg@50"]))
            values = rows.groupby("round")["score"].agg(["mean", "std", "count"])
            values = values[values["count"] == rows["seed"].nunique()].astype(float)
            colour = figures.COLOURS.get(variant, drawing.COLOURS[number])
            axis.plot(values.index, values["mean"], ".-", color=colour, label=variant)
            low, high = (values["mean"] + sign * values["std"] for sign in (-1, 1))
            axis.fill_between(values.index, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.set_title(recommender, fontsize="medium")
        axis.set_xlabel("round")
        axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)  # of all panels, when all lines are drawn
    # Those at the left edge.
    for axis in axes[::3]:
        axis.set_ylabel("validation NDCG@50,\nwarm users (%)")
    figures.legend_above(figure, axes[0])
    drawing.save(figure, path)


def by_group(table: pd.DataFrame, column: str, label: str, path: Path) -> None:
    """Test NDCG@50, in percent, over groups in order: mean and deviation over seeds.

    Args:
        table: a row per `recommender`, `variant` and group: `ndcg@50`, `ndcg@50 sd`, and `users`
            where groups differ in them.
        column: that names the group.
        label: what the groups are, with their unit.
        path: of the PNG, in a folder that is there.
    """
    recommenders = list(dict.fromkeys(table["recommender"]))
    variants = figures.ordered(table["variant"], VARIANTS)
    groups = list(dict.fromkeys(table[column]))
    figure, axes = drawing.panels(len(recommenders), (4.0, 3.6), share_y=True)
    for axis, recommender in zip(axes, recommenders, strict=True):
        mine = table[table["recommender"] == recommender]
        for number, variant in enumerate(variants):
            rows = mine[mine["variant"] == variant]
            shift = _APART * (number - (len(variants) - 1) / 2)
            axis.errorbar(
                np.array([groups.index(g) for g in rows[column]]) + shift,
                figures.numbers(rows[_GROUP_SCORE]),
                figures.numbers(rows[f"{_GROUP_SCORE} sd"]),
                fmt="o-",
                color=figures.COLOURS.get(variant, drawing.COLOURS[number]),
                label=variant,
                capsize=3,
            )
        axis.set_title(recommender, fontsize="medium")
        axis.set_xticks(range(len(groups)), [_named(table, column, group) for group in groups])
        axis.set_xlim(-0.5, len(groups) - 0.5)
        axis.set_xlabel(label)
        axis.grid(axis="y", alpha=0.3)
        axis.tick_params(labelleft=True)
    axes[0].set_ylim(bottom=0)
    for axis in axes[::3]:
        axis.set_ylabel("test NDCG@50 (%)")
    figures.legend_above(figure, axes[0])
    drawing.save(figure, path)


def _named(table: pd.DataFrame, column: str, group: object) -> str:
    """A group with the number of its users, where that is known."""
    if "users" not in table:
        return str(group)
    return f"{group}\nn={table.loc[table[column] == group, 'users'].iloc[0]:,}"
