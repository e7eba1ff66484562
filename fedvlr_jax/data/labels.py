"""Names, titles and pictures of a data folder for people to read; all of them are optional."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64

from fedvlr_jax.data.layout import TRAIN, find_table
from fedvlr_jax.data.pictures import PictureFolder
from fedvlr_jax.data.table import read_table
from fedvlr_jax.data.text import is_missing, plain, shown
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import read_json
from fedvlr_jax.foreign import from_cell

_PREFERENCE = "preference_"


@dataclass(frozen=True)
class Labels:
    """Names of users and items, by their ids in the data set.

    Attributes:
        users: original ids, or None.
        items: original ids, or None.
        titles: texts, "" where there is none, or None.
        pictures: paths below `folder`, "" where there is none, or None.
        folder: where the pictures are, or None.
        preferences: what a generated shop's users prefer by name, as text; empty for real ones.
    """

    users: Sequence[str] | None = None
    items: Sequence[str] | None = None
    titles: Sequence[str] | None = None
    pictures: Sequence[str] | None = None
    folder: PictureFolder | None = None
    preferences: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_labels(folder: Path, n_users: int, n_items: int) -> Labels:
    """Read items.csv, users.csv and dataset.json of a data folder, as far as they are there.

    Raises:
        UserError: one of them is malformed.
    """
    users = _columns(folder / "users.csv", "userID", n_users)
    items = _columns(folder / "items.csv", "itemID", n_items)
    pictures, place = items.get("image"), _picture_folder(folder)
    return Labels(
        users=users.get("original_id"),
        items=items.get("original_id"),
        titles=items.get("title"),
        pictures=pictures if place else None,
        folder=place,
        preferences={
            name.removeprefix(_PREFERENCE): [
                _share(folder / "users.csv", name, value) for value in values
            ]
            for name, values in users.items()
            if name.startswith(_PREFERENCE)
        },
    )


def history_in_time(folder: Path, user: int) -> Int64[np.ndarray, " items"]:
    """A user's train items, oldest first if all of them have timestamps, else in file order.

    Raises:
        UserError: the table is malformed.
    """
    path, separator, label = find_table(folder)
    table = read_table(path, separator, ("userID", "itemID", label))
    users, items, split = (table.whole_numbers(name)[0] for name in ("userID", "itemID", label))
    rows = np.flatnonzero((users == user) & (split == TRAIN))
    if "timestamp" in table.cells:
        rows = rows[_order_in_time(table.cells["timestamp"].iloc[rows])]
    return pd.unique(items[rows])


def _order_in_time(times: pd.Series) -> Int64[np.ndarray, " rows"]:
    """Which order is the oldest first: by number, or by ISO 8601 date; never by text."""
    for parsed in (
        pd.to_numeric(times, errors="coerce"),
        pd.to_datetime(times, errors="coerce", format="ISO8601", utc=True),
    ):
        if parsed.notna().all():
            return np.argsort(parsed.to_numpy(), kind="stable")
    return np.arange(len(times))


def _columns(path: Path, key: str, count: int) -> dict[str, list[str]]:
    """The columns as text, row k that of id k; nothing where there is no file."""
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        table = read_table(path, ",", (key,))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    ids, _ = table.whole_numbers(key)
    if not np.array_equal(np.sort(ids), np.arange(count)):
        raise UserError(f"{path}: expected every {key} from 0 to {count - 1} once")
    cells = table.cells.iloc[np.argsort(ids)]
    return {
        name: ["" if is_missing(text) else plain(from_cell(text)) for text in cells[name]]
        for name in cells
        if name
    }


def _share(path: Path, name: str, text: str) -> str:
    """A generated user's preference; an error if it is no number from 0 to 1."""
    try:
        fine = 0 <= float(text) <= 1
    except ValueError:
        fine = False
    if not fine:
        raise UserError(f"{path}: {name} is {shown(text)}, expected a number from 0 to 1")
    return text


def _picture_folder(folder: Path) -> PictureFolder | None:
    """Where dataset.json says that the pictures are, if they are still there."""
    try:
        place = folder / read_json(folder / "dataset.json")["images"]["folder"]
        return PictureFolder(place) if place.is_dir() else None
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None
