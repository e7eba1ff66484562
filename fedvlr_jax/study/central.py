"""Centralized references of a study, kept on disk so that they are not computed twice."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedvlr_jax import files
from fedvlr_jax.analysis import metrics
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.references.choose import SEARCHED, Reference, references
from fedvlr_jax.simulation import environment

_FILE = "references.json"
_MOST = 1 << 30  # bytes of it


def kept_references(dataset: Dataset, folder: Path, tell: Callable[[str], None]) -> list[Reference]:
    """The references (references/choose.py), read from the folder if they are there.

    Args:
        dataset: in one process.
        folder: there already; what it keeps of another data set or search is computed anew.
        tell: takes a line for every reference that is computed.
    """
    path = folder / _FILE
    identity = {
        "data_fingerprint": dataset.fingerprint(),
        "searched": SEARCHED,
        "jax": environment.in_force(),
    }
    kept = files.read_json(path, _MOST) if path.exists() else {}
    if _is_of(kept, identity):
        try:
            return [_reference(row) for row in kept["references"]]
        except (TypeError, ValueError, LookupError, AttributeError):
            tell(f"{path}: was changed by hand or is damaged; the references are computed anew")
    rows = []
    for reference in references(dataset, seed=0):
        score = metrics.selection_score(reference.valid)
        tell(f"{reference.name} {reference.setting}: valid {metrics.SELECTION} {score:.2f}")
        rows.append(vars(reference) | {"test_ranks": reference.test_ranks.tolist()})
    files.write_json(path, identity | {"references": rows})
    return [_reference(row) for row in rows]


def _is_of(kept: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether references are those of this data and search, their draws those of today's JAX."""
    began = kept.get("jax", {})
    return (
        all(kept.get(name) == identity[name] for name in ("data_fingerprint", "searched"))
        and isinstance(began, dict)
        and environment.difference(began, identity["jax"]) is None
    )


def _reference(row: Mapping[str, Any]) -> Reference:
    ranks = np.array(row["test_ranks"])
    names = all(isinstance(row[name], str) for name in ("name", "setting"))
    scores = [value for part in ("valid", "test") for value in row[part].values()]
    if not names or ranks.dtype.kind != "i" or ranks.ndim != 1:
        raise ValueError("no reference")
    if any(value is not None and not isinstance(value, float) for value in scores):
        raise ValueError("a score that is no number")
    return Reference(**{**row, "test_ranks": ranks})
