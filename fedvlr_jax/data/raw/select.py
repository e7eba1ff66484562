"""Merge repeated interactions, drop users and items with too few, and split by time."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from fedvlr_jax.data.layout import TEST, TRAIN, VALID
from fedvlr_jax.data.raw.log import Log
from fedvlr_jax.errors import UserError

# Fewer would leave a user without a train, a validation or a test item.
SMALLEST_HISTORY = 3


@dataclass(frozen=True)
class Selection:
    """The interactions that stay, ordered by user and time.

    Attributes:
        user: dense user id of every interaction.
        item: dense item id.
        time: as in the log.
        split: TRAIN, VALID or TEST.
        user_code: code in the log of every dense user id.
        item_code: code in the log of every dense item id.
        merged: interactions that repeated an earlier one of the same user and item.
        tied: users whose test or validation item has the same time as the item before it.
    """

    user: Int64[np.ndarray, " kept"]
    item: Int64[np.ndarray, " kept"]
    time: Float64[np.ndarray, " kept"]
    split: Int64[np.ndarray, " kept"]
    user_code: Int64[np.ndarray, " users"]
    item_code: Int64[np.ndarray, " items"]
    merged: int
    tied: int


def select(log: Log, min_user: int, min_item: int) -> Selection:
    """Choose and split the interactions of a log.

    Of several interactions of one user with one item the first in time stays. Then users with
    fewer than `min_user` and items with fewer than `min_item` interactions are dropped, again and
    again until none is left. Every user's last interaction is its test item, the one before its
    validation item; of two at the same time, the one that was read later is later. Ids are dense,
    in the order of the codes in the log.

    Args:
        log: as read.
        min_user: smallest number of different items of a user, at least `SMALLEST_HISTORY`.
        min_item: smallest number of users of an item.

    Raises:
        UserError: nothing is left.
    """
    first = _first_of_each_pair(log)
    kept = _core(log.user[first], log.item[first], min_user, min_item)
    events = first[kept]
    if not len(events):
        raise UserError(
            f"--min_user_interactions={min_user}, --min_item_interactions={min_item}: none of the "
            f"{len(log.users)} users and {len(log.items)} items has that many, expected smaller "
            "numbers or more data"
        )
    user_code, user = np.unique(log.user[events], return_inverse=True)
    item_code, item = np.unique(log.item[events], return_inverse=True)
    order = np.lexsort((events, log.time[events], user))
    user, item, time = user[order], item[order], log.time[events][order]
    left = np.cumsum(np.bincount(user))[user] - np.arange(len(user)) - 1  # later ones of the user
    split = np.select([left == 0, left == 1], [TEST, VALID], TRAIN)
    held = np.flatnonzero(split != TRAIN)  # the first row is never among them
    tied = len(np.unique(user[held[time[held] == time[held - 1]]]))
    return Selection(
        user.astype(np.int64),
        item.astype(np.int64),
        time,
        split.astype(np.int64),
        user_code,
        item_code,
        merged=len(log.user) - len(first),
        tied=tied,
    )


def _first_of_each_pair(log: Log) -> Int64[np.ndarray, " pairs"]:
    """Ascending positions of each (user, item) pair's earliest event."""
    events = pd.DataFrame({"user": log.user, "item": log.item})
    in_time = events.iloc[np.argsort(log.time, kind="stable")]
    return np.sort(in_time.drop_duplicates().index.to_numpy())


def _core(
    user: Int64[np.ndarray, " pairs"],
    item: Int64[np.ndarray, " pairs"],
    min_user: int,
    min_item: int,
) -> Bool[np.ndarray, " pairs"]:
    """Which pairs are left when no user and no item has fewer than its minimum."""
    kept = np.ones(len(user), bool)
    while True:
        users, items = np.bincount(user[kept]), np.bincount(item[kept])
        enough = np.zeros(len(user), bool)
        enough[kept] = (users[user[kept]] >= min_user) & (items[item[kept]] >= min_item)
        if enough.sum() == kept.sum():
            return kept
        kept = enough
