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
LEAVE_ONE_OUT, GLOBAL_TIME = SPLITS = ("leave_one_out", "global_time")
_LEFT_OUT = -1  # in place of a label


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
        tied: users whose test or validation item another item could be, as it has the same time.
        moments: when validation and test begin for all users; None where every user has its own.
        untrained: users that are left out, as they have no interaction before validation begins.
        unused: interactions that are left out beside theirs, as a user has only one item to test.
    """

    user: Int64[np.ndarray, " kept"]
    item: Int64[np.ndarray, " kept"]
    time: Float64[np.ndarray, " kept"]
    split: Int64[np.ndarray, " kept"]
    user_code: Int64[np.ndarray, " users"]
    item_code: Int64[np.ndarray, " items"]
    merged: int
    tied: int
    moments: tuple[float, float] | None = None
    untrained: int = 0
    unused: int = 0


def select(
    log: Log, min_user: int, min_item: int, split: str = LEAVE_ONE_OUT, share: float = 0.1
) -> Selection:
    """Choose and split the interactions of a log.

    Of several interactions of one user with one item the first in time stays. Then users with
    fewer than `min_user` and items with fewer than `min_item` interactions are dropped, again and
    again until none is left. Of two interactions at the same time, the one that was read later is
    later. Ids are dense, in the order of the codes in the log.

    `LEAVE_ONE_OUT`: every user's last interaction is its test item, the one before its validation
    item. `GLOBAL_TIME`: validation and test begin at the same moments for all users. What is
    earlier is train; the first interaction of a user in either time is its validation or test item,
    and the following ones in that time are left out. So are users without train items.

    Args:
        log: as read.
        min_user: smallest number of different items of a user, at least `SMALLEST_HISTORY`.
        min_item: smallest number of users of an item.
        split: one of `SPLITS`.
        share: of all interactions, how many are in the time of test, and as many again in that of
            validation (`GLOBAL_TIME` only).

    Raises:
        UserError: nothing is left, or times leave nobody to train, to choose by or to test.
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
    events = events[np.lexsort((events, log.time[events], log.user[events]))]
    user, time = log.user[events], log.time[events]
    moments = None
    if split == GLOBAL_TIME:
        moments = _moments(time, share)
        label = _by_moments(user, time, moments)
        other = np.arange(1, len(user) + 1)  # the item after a held-out one, which is not first
    else:
        label, other = _last_two(user), np.arange(-1, len(user) - 1)
    held = np.flatnonzero(label > TRAIN)
    held = held[(other[held] >= 0) & (other[held] < len(user))]
    alike = (user[held] == user[other[held]]) & (time[held] == time[other[held]])
    used = label != _LEFT_OUT
    user_code, dense = np.unique(user[used], return_inverse=True)
    item_code, item = np.unique(log.item[events[used]], return_inverse=True)
    trained = np.isin(user, user_code)
    return Selection(
        dense.astype(np.int64),
        item.astype(np.int64),
        time[used],
        label[used],
        user_code,
        item_code,
        merged=len(log.user) - len(first),
        tied=len(np.unique(user[held[alike]])),
        moments=moments,
        untrained=len(np.unique(user[~trained])),
        unused=int((trained & ~used).sum()),
    )


def _last_two(user: Int64[np.ndarray, " events"]) -> Int64[np.ndarray, " events"]:
    """Labels of events in the order of user and time: a user's last is test, the one before valid.

    Args:
        user: code of every event's user, at least `SMALLEST_HISTORY` events each.
    """
    ends = np.searchsorted(user, user, side="right")
    left = ends - np.arange(len(user)) - 1  # later ones of the user
    return np.select([left == 0, left == 1], [TEST, VALID], TRAIN).astype(np.int64)


def _moments(time: Float64[np.ndarray, " events"], share: float) -> tuple[float, float]:
    """When validation begins, and when test does."""
    ordered, number = np.sort(time), len(time)
    return tuple(float(ordered[min(number - 1, round(number * (1 - share * k)))]) for k in (2, 1))


def _by_moments(
    user: Int64[np.ndarray, " events"],
    time: Float64[np.ndarray, " events"],
    moments: tuple[float, float],
) -> Int64[np.ndarray, " events"]:
    """Labels of events in the order of user and time, see `GLOBAL_TIME`.

    Raises:
        UserError: nobody has a train item, or nobody of those has a validation or a test item.
    """
    valid, test = moments
    label = np.select([time >= test, time >= valid], [TEST, VALID], TRAIN).astype(np.int64)
    follows = np.zeros(len(user), bool)
    follows[1:] = (user[1:] == user[:-1]) & (label[1:] == label[:-1])
    trained = np.isin(user, user[label == TRAIN])
    label = np.where(trained & ~(follows & (label != TRAIN)), label, _LEFT_OUT)
    for wanted, name in ((TRAIN, "train"), (VALID, "validation"), (TEST, "test")):
        if not (label == wanted).any():
            raise UserError(
                f"--split={GLOBAL_TIME}: no user with a train item has a {name} item, as "
                f"validation would begin at {written(valid)} and test at {written(test)}, expected "
                "times that differ more, or another --held_out_share"
            )
    return label


def written(moment: float) -> str:
    """A time as tables have it."""
    return f"{moment:.0f}" if moment == np.floor(moment) else repr(moment)


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
