"""Tables of the paper's comparison and of planted preferences, as data frames."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from fedvlr_jax import record
from fedvlr_jax.analysis import groups, metrics
from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.analysis.recovery import correlation
from fedvlr_jax.analysis.statistics import gains, paired, spread
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


def accuracy_table(trained: Sequence[Found], references: Sequence[Reference]) -> pd.DataFrame:
    """The paper's table 2: test metrics in percent, mean and standard deviation over seeds."""
    rows = []
    for f in trained:
        valid = spread("mean", [r.summary["valid"]["warm/ndcg@50"] for r in f.runs])["mean"]
        rows.append(names_of(f) | dict(f.point) | {"valid warm/ndcg@50": valid} | _tested(f))
    for r in references:
        name = {"recommender": r.name, "variant": "centralized"}
        rows.append(name | {"valid warm/ndcg@50": r.valid["warm/ndcg@50"]} | _spread([r.test]))
    return pd.DataFrame(rows)


def parameter_table(trained: Sequence[Found], data: str) -> pd.DataFrame:
    """The paper's table 3, in thousands of numbers, beside the paper's where it has the data set.

    `private` never leaves the device; `received` is what a round's broadcast adds to it (the views
    of every item and the backbone's network); `client` is the sum, which the paper counts, and
    `server` what the server learns.
    """
    rows = []
    for f in trained:
        counts = f.runs[0].summary["parameters"]
        received = _protocol(f).download_bytes() / 4
        backbone, variant = f.combination.backbone, f.combination.variant
        private = counts["private_per_client"]
        rows.append(
            {
                "backbone": backbone,
                "variant": variant,
                "private": private / 1e3,
                "received": received / 1e3,
                "client": (private + received) / 1e3,
                "client, the paper's": published.client_thousands(data, backbone, variant),
                "server": counts["server"] / 1e3,
            }
        )
    return pd.DataFrame(rows)


def communication_table(trained: Sequence[Found]) -> pd.DataFrame:
    """Kilobytes down and up per client and round, for histories of 5, 20 and 200 train items.

    `up, paper` is the paper's protocol: gradients of D, gamma and the network, all of them. `up, n`
    is what is uploaded here by a client with a history of n: gradients of the views of touched
    items, expected over its draws of negatives.
    """
    rows = []
    for f in trained:
        protocol = _protocol(f)
        row = {
            "backbone": f.combination.backbone,
            "variant": f.combination.variant,
            "down": protocol.download_bytes() / 1e3,
            "up, paper": protocol.paper_upload_bytes() / 1e3,
        }
        for n in _LENGTHS:
            if n <= protocol.n_items // 2:
                row[f"up, {n}"] = float(protocol.upload_bytes(np.array([n]))[0]) / 1e3
        rows.append(row)
    return pd.DataFrame(rows)


def _protocol(trained: Found) -> Protocol:
    return Protocol(**trained.runs[0].summary["communication"]["protocol"])


def changes_table(column: str, parts: Sequence[tuple[str, Found]]) -> pd.DataFrame:
    """Accuracy of combinations with something changed, named in `column`."""
    return pd.DataFrame([names_of(f) | {column: name} | _tested(f) for name, f in parts])


def curves_table(trained: Sequence[Found]) -> pd.DataFrame:
    """Validation warm NDCG@50 of every evaluated round of every seed, in percent."""
    rows = []
    for f in trained:
        for run in f.runs:
            seed = record.settings(run.out, ("seed",))["seed"]
            for line in record.evaluations(run.out):
                measured = {"round": line["round"], "warm/ndcg@50": line["valid/warm/ndcg@50"]}
                rows.append(names_of(f) | {"seed": seed} | measured)
    return pd.DataFrame(rows)


def reliance_table(trained: Sequence[Found]) -> pd.DataFrame:
    """What every user relies on (docs/method.md "Reliance"), and the user's accuracy.

    A row per combination and user, averaged over seeds: shares of image, text and id, train items,
    and `gain`, the NDCG@50 in percent of the user's test item, None where it is not warm.
    """
    parts = []
    for f in trained:
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
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def names_of(trained: Found) -> dict[str, str]:
    """The columns that tell a combination."""
    return {"recommender": trained.combination.backbone, "variant": trained.combination.variant}


def users_of(run: Result) -> dict[str, np.ndarray]:
    """The arrays of a run's per_user.npz (docs/outputs.md)."""
    return record.per_user(run.out)


def significance_table(trained: Sequence[Found], first: str, second: str) -> pd.DataFrame:
    """Test NDCG@50 of variant `first` minus `second`, over warm users, averaged over seeds."""
    folders: dict[str, dict[str, list[Path]]] = {}  # by backbone and variant
    for f in trained:
        variants = folders.setdefault(f.combination.backbone, {})
        variants[f.combination.variant] = [run.out for run in f.runs]
    rows = [
        {"backbone": backbone, "difference": f"{first} - {second}"}
        | vars(over_users(variants[first], variants[second]))
        for backbone, variants in folders.items()
        if first in variants and second in variants
    ]
    return pd.DataFrame(rows)


def references_table(trained: Sequence[Found], references: Sequence[Reference]) -> pd.DataFrame:
    """Test NDCG@50 of combinations minus that of every reference, over warm users.

    Averaged over seeds and paired by user, as in `significance_table`.
    """
    rows = []
    for f in trained:
        users = [users_of(run) for run in f.runs]
        warm, who = users[0]["warm"], users[0]["user"]
        mine = gains(np.stack([u["rank"][warm] for u in users]))
        for reference in references:
            difference = paired(mine, gains(reference.test_ranks[who][warm][None]))
            rows.append(names_of(f) | {"minus": reference.name} | vars(difference))
    return pd.DataFrame(rows)


def _tested(trained: Found) -> dict[str, float | None]:
    """A combination's test metrics over seeds."""
    return _spread([run.summary["test"] for run in trained.runs])


def _spread(
    measured: Sequence[dict[str, float | None]], names: Iterable[str] = _METRICS
) -> dict[str, float | None]:
    """Mean and, of several, standard deviation of some of the numbers measured."""
    columns: dict[str, float | None] = {}
    for name in names:
        columns |= spread(name, [m[name] for m in measured])
    return columns


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
    clients: dict[str, int] = {}
    measured: dict[str, list[dict[str, float | None]]] = {}  # by group, of every seed
    for mine, other in zip(personal.runs, generic.runs, strict=True):
        composition = mine.summary["composition"].values()
        shares = np.array([[view[m] for m in MODALITIES] for view in composition])
        a, b = users_of(mine), users_of(other)
        preference = planted.preference[a["user"]]
        learned = {"weights": a["view_weights"] @ shares, "removal": a["reliance"]}
        for name, chosen in _groups(a["history_length"]).items():
            row = {
                f"spearman {way}": correlation(preference[chosen], reliance[chosen])
                for way, reliance in learned.items()
            }
            scores = [
                metrics.from_ranks(x["rank"][chosen], x["warm"][chosen])["warm/ndcg@50"]
                for x in (a, b)
            ]
            variants = (f.combination.variant for f in (personal, generic))
            row |= zip(variants, scores, strict=True)
            row["gain %"] = None if not scores[1] else 100 * (scores[0] / scores[1] - 1)
            clients.setdefault(name, int(chosen.sum()))
            measured.setdefault(name, []).append(row)
    return pd.DataFrame(
        [
            {"history": name, "clients": clients[name]} | _spread(rows, rows[0])
            for name, rows in measured.items()
        ]
    )


def _groups(lengths: Int[np.ndarray, " clients"]) -> dict[str, Bool[np.ndarray, " clients"]]:
    """Clients by their number of train items."""
    by_name = {"all": lengths > 0, "20 and more": lengths >= 20}
    for name, low, high in groups.ranges(groups.HISTORY_EDGES):
        by_name[name] = groups.within(lengths, low, high)
    return {name: chosen for name, chosen in by_name.items() if chosen.any()}
