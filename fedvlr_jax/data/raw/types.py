"""What every source is read into: a log of interactions, and what is known about the items."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64


@dataclass(frozen=True)
class Log:
    """Interactions in the order they were read.

    `users[c]` and `items[c]` are the original ids of code c, in order of first appearance; event k
    is (`user[k]`, `item[k]`, `time[k]`), time in whatever unit the source uses.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: Int64[np.ndarray, " events"]
    item: Int64[np.ndarray, " events"]
    time: Float64[np.ndarray, " events"]


@dataclass(frozen=True)
class Raw:
    """A source as it was read.

    Attributes:
        log: the interactions.
        titles: text of an item by its original id, where it has one; None if the source has no
            texts at all.
        pictures: path below the picture folder by original item id, where the source names them;
            None if a picture is named after its item.
        features: ready-made features by modality ("image", "text"), a row per item code.
        user_columns: more columns of users.csv by name, a value per user code.
        files: the files that were read.
        notes: sentences that a person should see about how the files were read.
    """

    log: Log
    titles: Mapping[str, str] | None
    pictures: Mapping[str, str] | None = None
    features: Mapping[str, Float[np.ndarray, "items width"]] = field(default_factory=dict)
    user_columns: Mapping[str, Sequence] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class LogBuilder:
    """Collects events one by one in compact arrays.

    Example:
        >>> builder = LogBuilder()
        >>> builder.add("ann", "lamp", 10.0)
        >>> builder.add("bob", "lamp", 20.0)
        >>> log = builder.log()
        >>> log.users, log.items, log.user.tolist()
        (['ann', 'bob'], ['lamp'], [0, 1])
    """

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._user, self._item, self._time = array("q"), array("q"), array("d")

    def add(self, user: str, item: str, time: float) -> None:
        """Append one event."""
        self._user.append(self._users.setdefault(user, len(self._users)))
        self._item.append(self._items.setdefault(item, len(self._items)))
        self._time.append(time)

    def __contains__(self, item: str) -> bool:
        """Whether any event has this item."""
        return item in self._items

    def log(self) -> Log:
        """The events so far."""
        return Log(
            users=list(self._users),
            items=list(self._items),
            user=np.array(self._user, np.int64),
            item=np.array(self._item, np.int64),
            time=np.array(self._time, np.float64),
        )
