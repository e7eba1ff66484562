"""Tables of a study, as data frames; `write` puts one on disk as CSV and Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import files
from fedvlr_jax.analysis import significance
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.references.choose import Reference
from fedvlr_jax.simulation.run import Result
from fedvlr_jax.study.search import Found

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
            "recommender": f.combination.backbone,
            "variant": f.combination.variant,
            "server_lr": f.rates[0],
            "client_lr": f.rates[1],
            "valid warm/ndcg@50": float(
                np.mean([r.summary["valid"]["warm/ndcg@50"] for r in f.runs])
            ),
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


def parameter_table(found: Sequence[Found]) -> pd.DataFrame:
    """The paper's table 3: what a client keeps and what is shared, in thousands of numbers."""
    rows = []
    for f in found:
        counts = f.runs[0].summary["parameters"]
        rows.append(
            {
                "backbone": f.combination.backbone,
                "variant": f.combination.variant,
                "private, thousands": counts["private_per_client"] / 1e3,
                "shared, thousands": counts["server"] / 1e3,
            }
        )
    return pd.DataFrame(rows)


def significance_table(found: Sequence[Found], first: str, second: str) -> pd.DataFrame:
    """Test NDCG@50 of variant `first` minus `second`, over warm users, averaged over seeds."""
    by_name = {(f.combination.backbone, f.combination.variant): f.runs for f in found}
    rows = []
    for backbone in dict.fromkeys(f.combination.backbone for f in found):
        pair = [by_name.get((backbone, variant)) for variant in (first, second)]
        if None in pair:
            continue
        difference = significance.paired(*(significance.gains(_warm_ranks(r)) for r in pair))
        rows.append({"backbone": backbone, "difference": f"{first} - {second}"} | vars(difference))
    return pd.DataFrame(rows)


def _warm_ranks(runs: Sequence[Result]) -> np.ndarray:
    """Ranks of warm users' test items, a row per run; users are in the same order in all."""
    ranks = []
    for run in runs:
        with np.load(run.out / "per_user.npz") as per_user:
            ranks.append(per_user["rank"][per_user["warm"]])
    return np.stack(ranks)


def _spread(measured: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean and, of several, standard deviation of every metric."""
    found: dict[str, float | None] = {}
    for name in _METRICS:
        found |= spread(name, [m[name] for m in measured])
    return found


def spread(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """`name`: the mean, and `name sd`: the standard deviation of several; None if one is missing."""
    if None in values:
        return {name: None, f"{name} sd": None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)), f"{name} sd": deviation}


def write(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write `name`.csv and `name`.md into a folder that is there, each in one step."""
    files.write_text(folder / f"{name}.csv", table.to_csv(index=False))
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[_shown(x) for x in row] for row in table.itertuples(index=False)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    files.write_text(folder / f"{name}.md", text)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
