import json
import os

import numpy as np
import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.references.choose import Reference
from fedvlr_jax.simulation import environment
from fedvlr_jax.study import central
from tests import worlds

SCORES = {"warm/ndcg@50": 1.5, "hr@10": None}
ROW = {"name": "x", "setting": "y", "valid": SCORES, "test": SCORES, "test_ranks": [1]}
NOW = {"version": "0.10.2", "platform": "cpu", "jax_threefry_partitionable": True}


@pytest.fixture
def computed(monkeypatch):
    """How often references were computed, by a stand-in."""
    times = []

    def references(*_, **__):
        times.append(1)
        yield Reference("ItemKNN", "k = 5", SCORES, np.array([3, -1]), SCORES)

    monkeypatch.setattr(central, "references", references)
    monkeypatch.setattr(environment, "in_force", lambda: NOW)
    return times


def kept(folder):
    """References, and what was told."""
    told = []
    found = central.kept_references(worlds.dataset(), folder, told.append)
    assert [(r.name, r.test_ranks.tolist()) for r in found] == [("ItemKNN", [3, -1])]
    return told


def test_references_are_computed_once(tmp_path, computed):
    kept(tmp_path)
    assert kept(tmp_path) == []
    assert len(computed) == 1


@pytest.mark.parametrize(
    "references",
    [
        None,
        3,
        [3],
        [{}],
        {"name": "x"},
        *(
            [
                {"name": "x", "setting": "y", "valid": SCORES, "test": SCORES, "test_ranks": [1]}
                | edit
            ]
            for edit in (
                {"name": 3},
                {"more": 1},
                {"valid": []},
                {"test": {"hr@10": "high"}},
                {"test_ranks": "x"},
                {"test_ranks": [[1], [2, 3]]},
                {"test_ranks": [0.5]},
            )
        ),
    ],
    ids=range(12),
)
def test_spoilt_references_are_computed_anew(tmp_path, computed, references):
    kept(tmp_path)
    path = tmp_path / "references.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"references": references}))
    assert "computed anew" in kept(tmp_path)[0]
    assert len(computed) == 2
    assert kept(tmp_path) == []


def test_references_of_other_draws_are_computed_anew(tmp_path, computed, monkeypatch):
    kept(tmp_path)
    other = NOW | {"jax_threefry_partitionable": False}
    monkeypatch.setattr(environment, "in_force", lambda: other)
    kept(tmp_path)
    assert len(computed) == 2


def test_references_of_another_search_are_computed_anew(tmp_path, computed, monkeypatch):
    kept(tmp_path)
    monkeypatch.setattr(central, "SEARCHED", central.SEARCHED | {"EASE": [7.0]})
    kept(tmp_path)
    assert len(computed) == 2
    assert kept(tmp_path) == []


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "references.json")
    with pytest.raises(UserError, match=r"references\.json: is a pipe"):
        central.kept_references(worlds.dataset(), tmp_path, print)
