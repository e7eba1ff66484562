"""Tables of the paper's comparison and of planted preferences, as data frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from fedvlr_jax import record
from fedvlr_jax.analysis import groups, metrics
from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.analysis.recovery import correlation
from fedvlr_jax.analysis.statistics import gains, spread
from fedvlr_jax.data.types import Dataset, Planted
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.references.choose import Reference
from fedvlr_jax.report import published
from fedvlr_jax.report.baseline import over_users
from fedvlr_jax.runs.study import Found
from fedvlr_jax.simulation.run import Result

_LENGTHS = (5, 20, 200)  # of histories, in train items
_METRICS = tuple(f"{group}{m}@50" for group in ("warm/", "", "cold/") for m in ("hr", "ndcg"))


def data_table(dataset: Dataset) -> pd.DataFrame:
    """The paper's table 1: what is in the data set; interactions count held-out ones, too."""
    data = dataset.interactions
    held_out = sum(int((x >= 0).sum()) for x in data.held_out)
    interactions = int(data.lengths.sum()) + held_out
    density = interactions / (data.n_clients * data.n_items)
    return pd.DataFrame(
        [
            {
                "data": dataset.name,
                "users": data.n_clients,
                "items": data.n_items,
                "interactions": interactions,
                "sparsity %": 100 * (1 - density),
                "median history": float(np.median(data.lengths)),
                "longest history": int(data.lengths.max()),
                "warm test users": int(data.warm("test").sum()),
                "cold test users": int(((data.test >= 0) & ~data.warm("test")).sum()),
            }
        ]
    )


def accuracy_table(found: Sequence[Found], references: Sequence[Reference]) -> pd.DataFrame:
    """The paper's table 2: test metrics in percent, mean and standard deviation over seeds."""
    rows = [
        {
            **names_of(f),
            "server_lr": f.rates[0],
            "client_lr": f.rates[1],
            **_mean("valid warm/ndcg@50", [r.summary["valid"]["warm/ndcg@50"] for r in f.runs]),
            **_spread([r.summary["test"] for r in f.runs]),
        }
        for f in found
    ] + [
        {
            "recommender": r.name,
            "variant": "centralized",
            "valid warm/ndcg@50": r.valid["warm/ndcg@50"],
            **_spread([r.test]),
        }
        for r in references
    ]
    return pd.DataFrame(rows)


def parameter_table(found: Sequence[Found], data: str) -> pd.DataFrame:
    """The paper's table 3, in thousands of numbers, beside the paper's where it has the data set.

    `private` never leaves the device; `received` is what a round's broadcast adds to it (the views
    of every item and the backbone's network); `client` is the sum, which the paper counts, and
    `server` what the server learns.
    """
    rows = []
    for f in found:
        counts = f.runs[0].summary["parameters"]
        received = _protocol(f).download_bytes() / 4
        backbone, variant = f.combination.backbone, f.combination.variant
        rows.append(
            {
                "backbone": backbone,
                "variant": variant,
                "private": counts["private_per_client"] / 1e3,
                "received": received / 1e3,
                "client": (counts["private_per_client"] + received) / 1e3,
                "client, the paper's": published.client_thousands(data, backbone, variant),
                "server": counts["server"] / 1e3,
            }
        )
    return pd.DataFrame(rows)


def communication_table(found: Sequence[Found]) -> pd.DataFrame:
    """Kilobytes down and up per client and round, for histories of 5, 20 and 200 train items.

    `up, paper` is the paper's protocol: gradients of D, gamma and the network, all of them. `up, n`
    is what is uploaded here by a client with a history of n: gradients of the views of touched
    items, expected over its draws of negatives.
    """
    rows = []
    for f in found:
        protocol = _protocol(f)
        lengths = np.array([n for n in _LENGTHS if n <= protocol.n_items // 2])
        rows.append(
            {
                "backbone": f.combination.backbone,
                "variant": f.combination.variant,
                "down": protocol.download_bytes() / 1e3,
                "up, paper": protocol.paper_upload_bytes() / 1e3,
            }
            | {
                f"up, {n}": up / 1e3
                for n, up in zip(lengths, protocol.upload_bytes(lengths), strict=True)
            }
        )
    return pd.DataFrame(rows)


def _protocol(found: Found) -> Protocol:
    return Protocol(**found.runs[0].summary["communication"]["protocol"])


def changes_table(column: str, parts: Sequence[tuple[str, Found]]) -> pd.DataFrame:
    """Accuracy of combinations with something changed, named in `column`."""
    rows = [
        {
            **names_of(f),
            column: name,
            **_spread([r.summary["test"] for r in f.runs]),
        }
        for name, f in parts
    ]
    return pd.DataFrame(rows)


def curves_table(found: Sequence[Found]) -> pd.DataFrame:
    """Validation warm NDCG@50 of every evaluated round of every seed, in percent."""
    rows = []
    for f in found:
        for run in f.runs:
            seed = record.settings(run.out, ("seed",))["seed"]
            for measured in record.evaluations(run.out):
                rows.append(
                    {
                        **names_of(f),
                        "seed": seed,
                        "round": measured["round"],
                        "warm/ndcg@50": measured["valid/warm/ndcg@50"],
                    }
                )
    return pd.DataFrame(rows)


def reliance_table(found: Sequence[Found]) -> pd.DataFrame:
    """What every user relies on (docs/method.md "Reliance"), and the user's accuracy.

    A row per combination and user, averaged over seeds: shares of image, text and id, train items,
    and `gain`, the NDCG@50 in percent of the user's test item, None where it is not warm.
    """
    parts = []
    for f in found:
        users = [users_of(run) for run in f.runs]
        first = users[0]
        shares = np.mean([u["reliance"] for u in users], axis=0)
        gain = gains(np.stack([u["rank"] for u in users]))
        parts.append(
            pd.DataFrame(
                {
                    **names_of(f),
                    "user": first["user"],
                    "history_length": first["history_length"],
                    **dict(zip(MODALITIES, shares.T, strict=True)),
                    "gain": np.where(first["warm"] & (first["rank"] >= 0), gain, np.nan),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def names_of(found: Found) -> dict[str, str]:
    """The columns that tell a combination."""
    return {"recommender": found.combination.backbone, "variant": found.combination.variant}


def users_of(run: Result) -> dict[str, np.ndarray]:
    """The arrays of a run's per_user.npz (docs/outputs.md)."""
    return record.per_user(run.out)


def significance_table(found: Sequence[Found], first: str, second: str) -> pd.DataFrame:
    """Test NDCG@50 of variant `first` minus `second`, over warm users, averaged over seeds."""
    by_name = {(f.combination.backbone, f.combination.variant): f.runs for f in found}
    rows = []
    for backbone in dict.fromkeys(f.combination.backbone for f in found):
        pair = [by_name.get((backbone, variant)) for variant in (first, second)]
        if None not in pair:
            difference = over_users(*([run.out for run in runs] for runs in pair))
            row = {"backbone": backbone, "difference": f"{first} - {second}"}
            rows.append(row | vars(difference))
    return pd.DataFrame(rows)


def _spread(measured: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean and, of several, standard deviation of every metric."""
    found: dict[str, float | None] = {}
    for name in _METRICS:
        found |= spread(name, [m[name] for m in measured])
    return found


def _mean(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """`name`: mean; None if one is missing."""
    return {name: spread(name, values)[name]}


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
