"""What a finished run recommends to one user, and what its router looks at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fedvlr_jax import record
from fedvlr_jax.data.labels import Labels, history_in_time, read_labels
from fedvlr_jax.data.pictures import PictureFolder
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import UserError
from fedvlr_jax.opened import WEIGHT, open_run
from fedvlr_jax.settings import AT_LEAST_ONE, AT_LEAST_ZERO, argument


@dataclass(frozen=True)
class Shown:
    """An item as people see it; `held_out` is "test", "validation" or ""."""

    item: int
    title: str
    picture: str
    held_out: str = ""


@dataclass(frozen=True)
class Recommendation:
    """One user's history, recommendations and router.

    Attributes:
        run: folder of the run.
        data: name of the data set.
        variant: what was trained.
        user: id in the data set.
        name: original id, or "".
        history: train items, the newest first.
        top: recommended items, best first.
        test_rank: rank of the test item among all candidates, 0 = first; -1 without one.
        weights: weight of every view by its name, summing to 1.
        folder: where the pictures are, if there are any.
        preference: what a generated shop's user prefers, by modality, as text; else empty.
    """

    run: Path
    data: str
    variant: str
    user: int
    name: str
    history: tuple[Shown, ...]
    top: tuple[Shown, ...]
    test_rank: int
    weights: dict[str, float]
    folder: PictureFolder | None
    preference: dict[str, str]


def recommend(
    run: Any,
    user: Any = None,
    original_user: Any = None,
    top: Any = 10,
    data: Any = None,
    plugins: Any = None,
) -> Recommendation:
    """Read what a finished run recommends to a user.

    Args:
        run: path of the folder that `fedvlr_jax.train` has written.
        user: id in the data set, a whole number; or
        original_user: id in the raw data, a text or number, where users.csv knows it.
        top: number of items, at most as many as the run has ranked.
        data: path of the data set's folder, if it has moved since.
        plugins: modules of the run's plugins, as in `Config.of`, if they have moved since.

    Raises:
        UserError: no finished run there, its data has changed or is gone, or no such user.
    """
    user = None if user is None else argument("user", int, AT_LEAST_ZERO, user)
    top = argument("top", int, AT_LEAST_ONE, top)
    opened = open_run(run, data, plugins)
    run, users, best = opened.folder, opened.users, opened.rankings
    dataset, config = opened.dataset, opened.config
    _check_fits(run, dataset, users["user"].to_numpy(), best)
    folder = None if config.data.data == "synthetic" else Path(config.data.data)
    size = dataset.interactions
    labels = read_labels(folder, size.n_clients, size.n_items) if folder else Labels()
    user = _user(dataset, labels, user, original_user)
    row = np.flatnonzero(users["user"] == user)
    if not len(row):
        raise UserError(f"--user={user}: was not evaluated in {run} (--eval_clients)")
    if not 1 <= top <= best.shape[1]:
        raise UserError(f"--top={top}: expected 1 to {best.shape[1]} items")
    own, ranked = users.iloc[row[0]], best[row[0]]
    interactions = dataset.interactions
    held_out = {int(interactions.valid[user]): "validation", int(interactions.test[user]): "test"}
    if folder:
        history = history_in_time(folder, user)[::-1]
    else:
        history = interactions.items[slice(*interactions.offsets[user : user + 2])]

    def shown(item: int) -> Shown:
        title = labels.titles[item] if labels.titles else ""
        name = labels.items[item] if labels.items else ""
        return Shown(
            item=item,
            title=title or (f"item {item} ({name})" if name else f"item {item}"),
            picture=labels.pictures[item] if labels.pictures else "",
            held_out=held_out.get(item, ""),
        )

    return Recommendation(
        run=run,
        data=dataset.name,
        variant=config.method.variant,
        user=user,
        name=labels.users[user] if labels.users else "",
        history=tuple(shown(int(item)) for item in history),
        top=tuple(shown(int(item)) for item in ranked[ranked >= 0][:top]),
        test_rank=int(own["rank"]),
        weights={
            name.removeprefix(WEIGHT): float(own[name]) for name in users if name.startswith(WEIGHT)
        },
        folder=labels.folder,
        preference={name: values[user] for name, values in labels.preferences.items()},
    )


def _check_fits(
    run: Path, dataset: Dataset, users: Int[np.ndarray, " users"], top: Int[np.ndarray, "users top"]
) -> None:
    """Refuse results that are not of this data set."""
    size = dataset.interactions
    if users.size and users[-1] >= size.n_clients:
        raise UserError(
            f"--run={run}: {record.PER_USER} has user {users[-1]}, but the data set "
            f"has {size.n_clients:,} users"
        )
    if top.size and not -1 <= top.min() <= top.max() < size.n_items:
        raise UserError(
            f"--run={run}: {record.RANKINGS} has items that are not among the {size.n_items:,} "
            "of the data set"
        )


def _user(dataset: Dataset, labels: Labels, user: int | None, original: Any) -> int:
    n_clients = dataset.interactions.n_clients
    if (user is None) == (original is None):
        raise UserError("--user: expected either --user=ID or --original_user=ID")
    if original is not None:
        if labels.users is None:
            raise UserError(f"--original_user={original}: the data has no users.csv, use --user")
        if str(original) not in labels.users:
            raise UserError(f"--original_user={original}: not among the {n_clients} users kept")
        return labels.users.index(str(original))
    if not 0 <= user < n_clients:
        raise UserError(f"--user={user}: expected an id from 0 to {n_clients - 1}")
    return user
