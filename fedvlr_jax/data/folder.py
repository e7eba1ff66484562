"""Read a folder in the MMRec layout: a table of interactions and two feature files.

`inter.csv` (comma-separated, `userID,itemID,...,split_label`) or MMRec's `*.inter` (tab-separated,
`x_label`). Labels: 0 train, 1 validation, 2 test. Every problem is told with its file and line.
"""

import json
import tokenize
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, from_pairs
from fedvlr_jax.errors import UserError

TRAIN, VALID, TEST = 0, 1, 2
_SPLIT_NAMES = {VALID: "validation", TEST: "test"}
# Larger ids are a mistake, and would not fit the int32 arrays.
_LARGEST_ID = 2**31 - 2
# All that numpy is known to raise on files that are cut, corrupt or something else.
_NOT_AN_ARRAY = (
    ValueError,
    EOFError,
    MemoryError,
    SyntaxError,
    TypeError,
    RecursionError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


def read_folder(folder: Path, needs_content: bool) -> Dataset:
    """Read and check a data set.

    Args:
        folder: holds `inter.csv` or one `*.inter`, and `image_features.npy` and/or
            `text_features.npy` (floats, one row per item id).
        needs_content: whether the variant to train uses image or text features.

    Raises:
        UserError: anything missing, malformed or contradictory, with file and line.
    """
    try:
        return _read_folder(folder, needs_content)
    except OSError as error:
        raise UserError(f"--data={folder}: cannot be read ({error.strerror})") from None


def _read_folder(folder: Path, needs_content: bool) -> Dataset:
    if not folder.is_dir():
        raise UserError(f"--data={folder}: no such folder")
    image = read_features(folder / "image_features.npy")
    text = read_features(folder / "text_features.npy")
    row_counts = [len(rows) for rows in (image, text) if rows is not None]
    if needs_content and not row_counts:
        raise UserError(
            f"{folder}: neither image_features.npy nor text_features.npy is there, expected at "
            "least one for this variant (--variant=id needs none)"
        )
    if len(set(row_counts)) > 1:
        raise UserError(
            f"{folder}: image_features.npy has {row_counts[0]} rows and text_features.npy "
            f"{row_counts[1]}, expected one row per item in both"
        )
    path = find_table(folder)
    table, label = _read_table(path)
    lines = np.arange(len(table)) + 2
    notes = _encoder_notes(folder)
    repeats = _doubled_lines(table)
    if repeats.any():
        first = int(lines[repeats.argmax()])
        notes.append(
            f"{path}: {repeats.sum()} lines that repeat the line above them were read once, "
            f"the first is line {first}"
        )
        table, lines = table[~repeats].reset_index(drop=True), lines[~repeats]
    n_rows = row_counts[0] if row_counts else None
    interactions = _read_interactions(path, table, lines, label, n_rows)
    return Dataset(folder.resolve().name, interactions, Catalogue(image, text), notes=tuple(notes))


def _encoder_notes(folder: Path) -> list[str]:
    """A warning, if dataset.json says that the features came from random weights."""
    try:
        encoder = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["encoder"]
        if encoder["pretrained"]:
            return []
        name = encoder["name"]
    except (OSError, ValueError, KeyError, TypeError):  # no metadata, or somebody else's
        return []
    return [
        f"warning: {folder}: the features come from {name}, random weights without pretrained "
        "knowledge; results are of a dry run"
    ]


def find_table(folder: Path) -> Path:
    """The table of interactions in a data folder.

    Raises:
        UserError: there is none, or several.
    """
    if (folder / "inter.csv").is_file():
        return folder / "inter.csv"
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        what = "several *.inter files" if found else "neither inter.csv nor a *.inter file"
        raise UserError(f"{folder}: found {what}, expected exactly one table of interactions")
    return found[0]


def _doubled_lines(table: pd.DataFrame) -> np.ndarray:
    """Which rows are, in every column, the row directly above: one event logged twice.

    Published files hold such lines (KU has five). Any other repeated pair is a mistake.
    """
    return (table == table.shift()).all(axis=1).to_numpy()


def _refuse_repeats(path: Path, users: np.ndarray, items: np.ndarray, lines: np.ndarray) -> None:
    repeated = pd.DataFrame({"u": users, "i": items}).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise UserError(
            f"{path}, line {lines[row]}: user {users[row]} has item {items[row]} a second time, "
            "expected each pair once"
        )


def _read_interactions(
    path: Path, table: pd.DataFrame, lines: np.ndarray, label: str, n_rows: int | None
) -> Interactions:
    users, items, split = (
        _whole_numbers(path, table[name], lines, name) for name in ("userID", "itemID", label)
    )
    wrong = ~np.isin(split, (TRAIN, VALID, TEST))
    _refuse(path, wrong, table[label], lines, label, "0, 1 or 2")
    n_users = _check_dense(path, users, "userID")
    n_items = _check_dense(path, items, "itemID")
    _refuse_repeats(path, users, items, lines)
    if n_rows is not None and n_rows < n_items:
        raise UserError(
            f"{path.parent}: the feature files have {n_rows} rows, expected one for each of the "
            f"{n_items} items in {path.name}"
        )
    held_out = {s: _held_out(path, users, items, split == s, s, lines) for s in _SPLIT_NAMES}
    train = split == TRAIN
    lengths = np.bincount(users[train], minlength=n_users)
    n_items = max(n_items, n_rows or 0)
    for bad, what in ((0, "no train item"), (n_items, "every item in train")):
        if (lengths == bad).any():
            user = int((lengths == bad).argmax())
            raise UserError(
                f"{path}: user {user} has {what} ({label} 0), expected at least one and not all"
            )
    if (held_out[VALID] < 0).all():
        raise UserError(
            f"{path}: no row has {label} 1, expected validation items to choose the round on"
        )
    return from_pairs(users[train], items[train], held_out[VALID], held_out[TEST], n_items)


def _read_table(path: Path) -> tuple[pd.DataFrame, str]:
    """The table as text, row k from line k + 2, and the name of its split column."""
    tabs = path.suffix == ".inter"
    label = "x_label" if tabs else "split_label"
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would be cut and shifted with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if tabs else ",",
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty, expected a header and rows") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable table in UTF-8 ({reason})") from None
    filled = (table.fillna("") != "").any(axis=1).to_numpy()
    table = table[: len(filled) - int(filled[::-1].argmax()) if filled.any() else 0]
    for name in ("userID", "itemID", label):
        if name not in table.columns:
            found = ", ".join(str(c) for c in table.columns)
            raise UserError(f"{path}, line 1: no column {name}, found {found}")
    if table.empty:
        raise UserError(f"{path}: no row below the header, expected interactions")
    return table, label


def _whole_numbers(path: Path, column: pd.Series, lines: np.ndarray, name: str) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    bad = ~((numbers >= 0) & (numbers == np.floor(numbers)) & (numbers <= _LARGEST_ID))
    _refuse(path, bad, column, lines, name, "a whole number of at least 0")
    return numbers.astype(np.int64)


def _refuse(
    path: Path, bad: np.ndarray, column: pd.Series, lines: np.ndarray, name: str, expected: str
) -> None:
    if bad.any():
        row = int(bad.argmax())
        found = repr(str(column[row]))
        raise UserError(f"{path}, line {lines[row]}: {name} is {found}, expected {expected}")


def _check_dense(path: Path, ids: np.ndarray, name: str) -> int:
    """How many ids there are, refused unless they are 0..n-1 without a gap."""
    present = np.unique(ids)
    if present[-1] != len(present) - 1:
        gap = int((present != np.arange(len(present))).argmax())
        raise UserError(
            f"{path}: {name} {gap} is missing, expected every id from 0 to {present[-1]}"
        )
    return len(present)


def _held_out(
    path: Path,
    users: np.ndarray,
    items: np.ndarray,
    chosen: np.ndarray,
    split: int,
    lines: np.ndarray,
) -> np.ndarray:
    """The one item per user among the `chosen` rows, -1 for users without."""
    rows = np.flatnonzero(chosen)
    second = pd.Series(users[rows]).duplicated().to_numpy()
    if second.any():
        row = int(rows[second.argmax()])
        raise UserError(
            f"{path}, line {lines[row]}: user {users[row]} has a second {_SPLIT_NAMES[split]} "
            "item, expected leave-one-out (one at most)"
        )
    held_out = np.full(users.max() + 1, -1, np.int32)
    held_out[users[rows]] = items[rows]
    return held_out


def read_features(path: Path) -> Float[np.ndarray, "items width"] | None:
    """Frozen features from an .npy file, float16 or float32; None if there is no such file.

    Raises:
        UserError: anything else than a finite array of numbers of shape (items, width).
    """
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file:
            features = np.load(file, allow_pickle=False)
    except _NOT_AN_ARRAY as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a plain numpy array of numbers ({reason})") from None
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.size == 0:
        shape = getattr(features, "shape", "an archive")
        raise UserError(f"{path}: found {shape}, expected an array of shape (items, width)")
    if features.dtype.kind not in "fiu":
        raise UserError(f"{path}: holds {features.dtype}, expected numbers")
    if features.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as inf
            features = features.astype(np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{path}: row {int((~finite).argmax())} holds NaN, inf or more than float32 can, "
            "expected numbers"
        )
    return features
