"""What a prepared folder knows about its users and items for people to read; all of it optional."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64

from fedvlr_jax.data.folder import TRAIN, find_table
from fedvlr_jax.data.pictures import PictureFolder
from fedvlr_jax.data.text import plain
from fedvlr_jax.errors import UserError

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
            name.removeprefix(_PREFERENCE): values
            for name, values in users.items()
            if name.startswith(_PREFERENCE)
        },
    )


def history_in_time(folder: Path, user: int) -> Int64[np.ndarray, " items"]:
    """A user's train items, oldest first where the table has a timestamp, else in file order."""
    path = find_table(folder)
    tabs = path.suffix == ".inter"
    table = pd.read_csv(path, sep="\t" if tabs else ",", encoding="utf-8-sig")
    own = table[(table["userID"] == user) & (table["x_label" if tabs else "split_label"] == TRAIN)]
    if "timestamp" in own:
        own = own.sort_values("timestamp", kind="stable")
    return own["itemID"].drop_duplicates().to_numpy(np.int64)


def _columns(path: Path, key: str, count: int) -> dict[str, list[str]]:
    """The columns as text, row k that of id k; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        ids = table[key].astype(np.int64).to_numpy()
    except (
        OSError,
        OverflowError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        KeyError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a table with a column {key} ({reason})") from None
    if not np.array_equal(np.sort(ids), np.arange(count)):
        raise UserError(f"{path}: expected every {key} from 0 to {count - 1} once")
    table = table.iloc[np.argsort(ids)]
    return {name: [plain(text) for text in table[name]] for name in table}


def _picture_folder(folder: Path) -> PictureFolder | None:
    """Where dataset.json says that the pictures are, if they are still there."""
    try:
        summary = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        place = folder / summary["images"]["folder"]
        return PictureFolder(place) if place.is_dir() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
