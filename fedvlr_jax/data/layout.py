"""Read a data folder in the layout of MMRec: a table of interactions and two feature files.

`inter.csv` (comma-separated, `userID,itemID,...,split_label`) or MMRec's `*.inter` (tab-separated,
`x_label`). Labels: 0 train, 1 validation, 2 test. Every error names file and line.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int32, Int64

from fedvlr_jax.data.features import find_features, refuse_transposed
from fedvlr_jax.data.table import Table, read_table
from fedvlr_jax.data.text import plain
from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, from_pairs
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import read_json
from fedvlr_jax.foreign import short

TRAIN, VALID, TEST = 0, 1, 2
_SPLIT_NAMES = {VALID: "validation", TEST: "test"}
_MOST_TOLD = 5  # files of a folder that are named


class Layout(NamedTuple):
    """A folder's table of interactions: its file, separator and column of the split."""

    path: Path
    separator: str
    label: str


def read_folder(folder: Path, needs_content: bool) -> Dataset:
    """Read and check a data set.

    Args:
        folder: holds `inter.csv` or one `*.inter`, and `image_features.npy` and/or
            `text_features.npy` (floats, one row per item id), which MMRec calls `image_feat.npy`
            and `text_feat.npy`.
        needs_content: whether the variant to train uses image or text features.

    Raises:
        UserError: anything missing, malformed or contradictory, with file and line.
    """
    try:
        return _read_folder(folder, needs_content)
    except OSError as error:
        path = error.filename or f"--data={folder}"
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read_folder(folder: Path, needs_content: bool) -> Dataset:
    if not folder.is_dir():
        raise UserError(f"--data={folder}: no such folder")
    # Headers and the table are compared before gigabytes of features are read.
    features = find_features(folder)
    if needs_content and not features:
        raise UserError(
            f"{folder}: neither image_features.npy nor text_features.npy is there, expected at "
            f"least one for this variant (--variant=id needs none); found {_content(folder)}"
        )
    n_rows = next((file.shape[0] for file in features.values()), None)
    layout = find_table(folder)
    interactions, n_had, notes = _read_interactions(layout, n_rows)
    refuse_transposed(features, n_had)
    if n_rows is not None and n_rows > n_had:
        notes.append(
            f"{folder}: the feature files have {n_rows:,} rows, and the largest item in "
            f"{layout.path.name} is {n_had - 1}; the rows after it ({n_rows - n_had:,}) are taken "
            "to be items without interactions"
        )
    catalogue = {modality: file.read() for modality, file in features.items()}
    return Dataset(
        folder.resolve().name,
        interactions,
        Catalogue(catalogue.get("image"), catalogue.get("text")),
        notes=(*_encoder_notes(folder), *_left_out(layout.path), *notes),
    )


def _left_out(path: Path) -> list[str]:
    """That another table beside inter.csv is not read, if there is one."""
    others = [plain(other.name) for other in path.parent.glob("*.inter") if other != path]
    return [f"{path} is read, {min(others)} is ignored"] if others else []


def _content(folder: Path) -> str:
    """The names of what is in a folder, for people."""
    names = sorted(plain(path.name) for path in folder.iterdir())
    more = f" and {len(names) - _MOST_TOLD:,} more" if len(names) > _MOST_TOLD else ""
    return (", ".join(names[:_MOST_TOLD]) or "nothing") + more


def _encoder_notes(folder: Path) -> list[str]:
    """A warning, if dataset.json says that the features came from random weights."""
    if not (folder / "dataset.json").exists():
        return []
    try:
        encoder = read_json(folder / "dataset.json")["encoder"]
        if encoder["pretrained"]:
            return []
        name = plain(encoder["name"])
    except (UserError, KeyError, TypeError):  # written by another program, or nothing was encoded
        return []
    return [
        f"warning: {folder}: the features come from {short(name)}, random weights without "
        "pretrained knowledge; results are of a dry run"
    ]


def find_table(folder: Path) -> Layout:
    """The table of interactions in a data folder.

    Raises:
        UserError: there is none, or several.
    """
    path = folder / "inter.csv"
    # Opening it refuses a pipe or a link to nowhere.
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        return Layout(path, ",", "split_label")
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        what = "several *.inter files" if found else "neither inter.csv nor a *.inter file"
        raise UserError(f"{folder}: found {what}, expected exactly one table of interactions")
    return Layout(found[0], "\t", "x_label")


def _read_interactions(layout: Layout, n_rows: int | None) -> tuple[Interactions, int, list[str]]:
    """The interactions, the number of items in them, and notes for the user."""
    path, separator, label = layout
    names = ("userID", "itemID", label)
    table = read_table(path, separator, names)
    if not len(table.lines):
        raise UserError(f"{path}: no row below the header, expected interactions")
    expected = ("a whole number of at least 0",) * 2 + ("0, 1 or 2",)
    (users, _), (items, _), (split, _) = read = [
        table.whole_numbers(*column) for column in zip(names, expected, strict=True)
    ]
    notes = [note for _, found in read for note in found]
    wrong = ~np.isin(split, (TRAIN, VALID, TEST))
    if wrong.any():
        raise table.refuse_cell(int(wrong.argmax()), label, expected[2])
    repeats = _doubled_lines(table, users, items)
    if repeats.any():
        notes.append(
            f"{path}: {repeats.sum()} lines that repeat the line above them were read once, "
            f"the first is line {table.lines[repeats.argmax()]}"
        )
        table = table.without(repeats)
        users, items, split = (column[~repeats] for column in (users, items, split))
    n_users = _check_dense(table, users, "userID")
    n_items = _check_dense(table, items, "itemID")
    _refuse_repeats(table, users, items)
    if n_rows is not None and n_rows < n_items:
        line = table.lines[(items >= n_rows).argmax()]
        raise UserError(
            f"{path.parent}: the feature files have {n_rows} rows, expected one for each of the "
            f"{n_items} items in {path.name} (line {line} has item {n_rows} or more)"
        )
    held_out = {s: _held_out(table, users, items, split == s, s) for s in _SPLIT_NAMES}
    train = split == TRAIN
    lengths = np.bincount(users[train], minlength=n_users)
    n_had, n_items = n_items, max(n_items, n_rows or 0)
    for bad, what in ((0, "no train item"), (n_items, "every item in train")):
        if (lengths == bad).any():
            user = int((lengths == bad).argmax())
            raise table.refuse(
                int((users == user).argmax()),
                f"user {user} has {what} ({label} 0), expected at least one and not all",
            )
    if (held_out[VALID] < 0).all():
        raise UserError(
            f"{path}: no row has {label} 1, expected validation items to choose the round on"
        )
    packed = from_pairs(users[train], items[train], held_out[VALID], held_out[TEST], n_items)
    return packed, n_had, notes


def _doubled_lines(
    table: Table, users: Int64[np.ndarray, " rows"], items: Int64[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Which rows are, in every column, the row directly above: one event logged twice.

    Published files hold such lines (KU has five). Any other repeated pair is a mistake.
    """
    doubled = np.zeros(len(users), bool)
    rows = np.flatnonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1])) + 1
    above = table.cells.iloc[rows - 1].to_numpy()
    doubled[rows] = (table.cells.iloc[rows].to_numpy() == above).all(axis=1)
    return doubled


def _refuse_repeats(
    table: Table, users: Int64[np.ndarray, " rows"], items: Int64[np.ndarray, " rows"]
) -> None:
    repeated = pd.DataFrame({"u": users, "i": items}).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise table.refuse(
            row, f"user {users[row]} has item {items[row]} a second time, expected each pair once"
        )


def _check_dense(table: Table, ids: Int64[np.ndarray, " rows"], name: str) -> int:
    """How many ids there are, refused unless they are 0..n-1 without a gap."""
    present = np.unique(ids)
    if present[-1] != len(present) - 1:
        gap = int((present != np.arange(len(present))).argmax())
        line = table.lines[ids.argmax()]
        raise UserError(
            f"{table.path}: {name} {gap} is missing, expected every id from 0 to {present[-1]}, "
            f"which line {line} has"
        )
    return len(present)


def _held_out(
    table: Table,
    users: Int64[np.ndarray, " rows"],
    items: Int64[np.ndarray, " rows"],
    chosen: Bool[np.ndarray, " rows"],
    split: int,
) -> Int32[np.ndarray, " clients"]:
    """The one item per user among the `chosen` rows, -1 for users without."""
    rows = np.flatnonzero(chosen)
    second = pd.Series(users[rows]).duplicated().to_numpy()
    if second.any():
        row = int(rows[second.argmax()])
        raise table.refuse(
            row,
            f"user {users[row]} has a second {_SPLIT_NAMES[split]} item, expected leave-one-out "
            "(one at most); experiments.prepare --source=mmrec splits such a table anew",
        )
    held_out = np.full(users.max() + 1, -1, np.int32)
    held_out[users[rows]] = items[rows]
    return held_out
