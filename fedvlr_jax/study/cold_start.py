"""Accuracy where little is known: short histories, unpopular items, users who join late; tables."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from fedvlr_jax.analysis import groups
from fedvlr_jax.analysis.statistics import spread
from fedvlr_jax.data.split import split_clients
from fedvlr_jax.data.types import Dataset, Interactions
from fedvlr_jax.errors import DivergedError
from fedvlr_jax.report.paper_tables import names_of, users_of
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.study import Change, Found, Study
from fedvlr_jax.simulation.newcomers import join

_METRICS = ("hr@50", "ndcg@50")
# A number of every user, from the arrays of a run.
_Value = Callable[[dict[str, np.ndarray]], Int[np.ndarray, " users"]]
_ROUNDS = (0, 1, 2, 5, 10)  # after which newcomers are told of


def by_history_length(results: Sequence[Found]) -> pd.DataFrame:
    """Warm users by train items: a row per combination and group, mean and deviation over seeds."""
    return _by_group(
        results,
        groups.HISTORY_EDGES,
        lambda users: np.where(users["warm"], users["history_length"], -1),
    )


def by_item_popularity(results: Sequence[Found], data: Interactions) -> pd.DataFrame:
    """Users by how many have their test item in train; the first group's items nobody has."""
    popularity = np.where(data.test >= 0, data.popularity[data.test], -1)
    return _by_group(results, groups.POPULARITY_EDGES, lambda users: popularity[users["user"]])


def _by_group(results: Sequence[Found], edges: Sequence[int], value: _Value) -> pd.DataFrame:
    """Groups of users by a number of theirs; users whose number is negative are left out."""
    rows = []
    for result in results:
        parts = [_grouped(users_of(run), edges, value) for run in result.runs]
        for seeds in zip(*parts, strict=True):
            row = names_of(result) | {"group": seeds[0].name, "users": seeds[0].users}
            for metric in _METRICS:
                row |= spread(metric, [g.metrics[metric] for g in seeds])
            rows.append(row)
    return pd.DataFrame(rows)


def _grouped(
    users: dict[str, np.ndarray], edges: Sequence[int], value: _Value
) -> list[groups.Group]:
    values = value(users)
    ranks = np.where(values >= 0, users["rank"], -1)
    return [g for g in groups.by_value(ranks, users["warm"], values, edges) if g.users]


def members_of(dataset: Dataset, share: float) -> tuple[Change, Dataset]:
    """Training on those who are there from the start, and the data of those who join later.

    Raises:
        UserError: a share that leaves no members or no newcomers.
    """
    members, newcomers = split_clients(dataset, share, seed=0)
    # Whatever is kept of other runs: it is the best round that newcomers join.
    return Change("members", {"keep_checkpoints": "best"}, members), newcomers


def newcomers_table(
    study: Study,
    results: Sequence[Found],
    newcomers: Dataset,
    rows: Mapping[str, Row],
    tell: Callable[[str], None],
    rounds: Sequence[int] = _ROUNDS,
) -> pd.DataFrame:
    """Users who join after training (simulation/newcomers.py), by epochs of fitting.

    Args:
        study: gives settings and seeds, and which combinations the others train (`members_of`).
        results: of combinations.
        newcomers: data of the users who join later, the same ones for all.
        rows: how runs have ended.
        tell: takes a line for what diverges.
        rounds: of fitting, ascending, after which accuracy is told.

    Returns:
        A row per combination and round of fitting: test metrics of newcomers whose test item some
        member has in train, mean and deviation over seeds.
    """
    table = []
    for result in results:
        changes = study.changes.get(result.combination, ())
        change = next((c for c in changes if c.members is not None), None)
        trained = change and study.changed(result, change, rows)
        if trained is None:
            continue
        try:
            seeds = [
                join(
                    study.config(result.combination, result.point, seed),
                    *(run.out, change.members, newcomers, max(rounds)),
                )
                for seed, run in zip(study.seeds, trained.runs, strict=True)
            ]
        except DivergedError as reason:
            tell(f"{result.combination.name}: {reason}")
            continue
        for number in rounds:
            lines = [seed[number] for seed in seeds]
            row = names_of(result) | {"epochs": lines[0]["epochs"]}
            for metric in _METRICS:
                row |= spread(metric, [line[f"test/warm/{metric}"] for line in lines])
            table.append(row)
    return pd.DataFrame(table)
