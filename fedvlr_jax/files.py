"""Writing files so that a kill at any moment leaves the old content or the new, never half."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

UNFINISHED = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` in one step."""
    temporary = path.with_name(UNFINISHED + path.name)
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Replace the content of `path` by indented JSON; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, records: list[dict]) -> None:
    """Replace the content of `path` by one JSON object per line."""
    write_text(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def append_line(path: Path, record: dict) -> None:
    """Add one JSON object as a line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Replace the content of `path` by a comma-separated table with a header."""
    temporary = path.with_name(UNFINISHED + path.name)
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False, lineterminator="\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace the content of `path` by an array in numpy's own format."""
    temporary = path.with_name(UNFINISHED + path.name)
    with open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Replace the content of `path` by a compressed npz archive."""
    temporary = path.with_name(UNFINISHED + path.name)
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def is_unfinished(path: Path) -> bool:
    """Whether `path` is what a killed write left behind."""
    return path.name.startswith(UNFINISHED)
