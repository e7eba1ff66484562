"""Centralized references of a study, kept on disk so that they are not computed twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedvlr_jax import files
from fedvlr_jax.analysis import metrics
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.references.choose import Reference, references

_FILE = "references.json"


def kept_references(dataset: Dataset, folder: Path, tell: Callable[[str], None]) -> list[Reference]:
    """The references (references/choose.py), read from the folder if they are there.

    Args:
        dataset: in one process.
        folder: there already; what it keeps of another data set is computed anew.
        tell: takes a line for every reference that is computed.
    """
    fingerprint, path = dataset.fingerprint(), folder / _FILE
    kept = files.read_json(path) if path.is_file() else {}
    if kept.get("data_fingerprint") != fingerprint:
        rows = []
        for found in references(dataset, seed=0):
            score = metrics.selection_score(found.valid)
            shown = "--" if score is None else f"{score:.2f}"
            tell(f"{found.name} {found.setting}: valid {metrics.SELECTION} {shown}")
            rows.append(vars(found) | {"test_ranks": found.test_ranks.tolist()})
        kept = {"data_fingerprint": fingerprint, "references": rows}
        files.write_json(path, kept)
    return [Reference(**r | {"test_ranks": np.array(r["test_ranks"])}) for r in kept["references"]]
