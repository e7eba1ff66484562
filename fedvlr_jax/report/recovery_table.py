"""What personal routers learn of planted preferences, and what that is worth, as a table."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from fedvlr_jax.analysis import groups, metrics
from fedvlr_jax.analysis.recovery import correlation
from fedvlr_jax.analysis.statistics import spread
from fedvlr_jax.data.types import Planted
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.report.paper_tables import users_of
from fedvlr_jax.simulation.run import Result
from fedvlr_jax.study.search import Found


def recovery_table(planted: Planted, personal: Found, generic: Found) -> pd.DataFrame:
    """A row for all clients, for those with at least 20 train items, and per history length.

    Columns: the clients' `history` and how many `clients` have such; `spearman weights` and
    `spearman removal`, the rank correlation of planted and learned preference for image against
    text, learned by view weights and by taking a modality out of the scores (docs/method.md
    "Reliance"); warm test NDCG@50 in percent of both variants, and the relative `gain %` of the
    first. Each with its standard deviation over seeds in a column named `... sd`.

    Args:
        planted: what the population was generated from.
        personal: finished runs of the variant with routers, one per seed.
        generic: those of the variant to compare with, of the same seeds.
    """
    rows: dict[str, dict[str, list[Any]]] = {}
    for mine, other in zip(personal.runs, generic.runs, strict=True):
        shares = _composition(mine)
        a, b = users_of(mine), users_of(other)
        preference = planted.preference[a["user"]]
        learned = {"weights": a["view_weights"] @ shares, "removal": a["reliance"]}
        for name, chosen in _groups(a["history_length"]).items():
            row = rows.setdefault(name, {"clients": []})
            row["clients"].append(int(chosen.sum()))
            for way, reliance in learned.items():
                found = correlation(preference[chosen], reliance[chosen])
                row.setdefault(f"spearman {way}", []).append(found)
            scores = [
                metrics.from_ranks(x["rank"][chosen], x["warm"][chosen])["warm/ndcg@50"]
                for x in (a, b)
            ]
            for found, score in zip((personal, generic), scores, strict=True):
                row.setdefault(found.combination.variant, []).append(score)
            gain = None if not scores[1] else 100 * (scores[0] / scores[1] - 1)
            row.setdefault("gain %", []).append(gain)
    return pd.DataFrame([{"history": name} | _summary(row) for name, row in rows.items()])


def _composition(run: Result) -> Float[np.ndarray, "views modalities"]:
    return np.array([[v[m] for m in MODALITIES] for v in run.summary["composition"].values()])


def _groups(lengths: Int[np.ndarray, " clients"]) -> dict[str, Bool[np.ndarray, " clients"]]:
    """Clients by their number of train items."""
    found = {"all": lengths > 0, "20 and more": lengths >= 20}
    for name, low, high in groups.ranges(groups.HISTORY_EDGES):
        found[name] = groups.within(lengths, low, high)
    return {name: chosen for name, chosen in found.items() if chosen.any()}


def _summary(row: dict[str, list[Any]]) -> dict[str, Any]:
    """Means, and standard deviations of several."""
    summary: dict[str, Any] = {"clients": row["clients"][0]}
    for name, values in row.items():
        if name != "clients":
            summary |= spread(name, values)
    return summary
