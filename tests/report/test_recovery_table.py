from pathlib import Path

import numpy as np
import pytest

from fedvlr_jax.data.types import Planted
from fedvlr_jax.report.paper_tables import recovery_table
from fedvlr_jax.runs.study import Combination, Found
from fedvlr_jax.simulation.run import Result

LENGTHS = np.array([5, 6, 7, 20, 30, 60, 21])
PLANTED = Planted(np.random.default_rng(0).dirichlet(np.ones(3), 7).astype(np.float32))
SHARES = {"image": (1.0, 0.0, 0.0), "text": (0.0, 1.0, 0.0), "id": (0.0, 0.0, 1.0)}


def run(folder: Path, ranks, weights) -> Result:
    folder.mkdir()
    np.savez(
        folder / "per_user.npz",
        user=np.arange(7),
        rank=ranks,
        warm=np.arange(7) != 3,
        history_length=LENGTHS,
        view_weights=weights,
        reliance=weights[:, ::-1],
    )
    made_of = {view: dict(zip(SHARES, shares, strict=True)) for view, shares in SHARES.items()}
    return Result({"composition": made_of}, folder)


def test_correlations_and_gains_are_told_per_group_and_seed(tmp_path):
    ranks = np.array([0, 0, 0, 0, 2, 60, 0])
    weights = PLANTED.preference
    mine = [run(tmp_path / f"f{s}", ranks, weights[:, [0, 1, 2]]) for s in range(2)]
    theirs = [run(tmp_path / f"m{s}", ranks + 1 + 5 * s, weights) for s in range(2)]
    found = [
        Found(Combination("fedavg", variant), (("server_lr", 0.1),), tuple(runs))
        for variant, runs in (("fedvlr", mine), ("mlp", theirs))
    ]
    table = recovery_table(PLANTED, *found).set_index("history")
    assert table["clients"].to_dict() == {
        **{"all": 7, "20 and more": 4, "5 to 9": 3, "20 to 49": 3, "50 and more": 1},
    }
    assert table.loc["all", "spearman weights"] == pytest.approx(1)
    assert table.loc["all", "spearman weights sd"] == pytest.approx(0, abs=1e-6)
    assert table.loc["all", "spearman removal"] < 1
    assert np.isnan(table.loc["50 and more", "spearman weights"])
    # Warm clients with 20 or more: the last three, of which the rank of one counts nothing.
    gain = [(1 + 1 / np.log2(4)), (1 / np.log2(3) + 1 / np.log2(5))]
    assert table.loc["20 and more", "fedvlr"] == pytest.approx(100 * gain[0] / 3)
    later = 1 / np.log2(8) + 1 / np.log2(10)
    gains = [100 * (gain[0] / x - 1) for x in (gain[1], later)]
    assert table.loc["20 and more", "gain %"] == pytest.approx(np.mean(gains))
    assert table.loc["20 and more", "gain % sd"] == pytest.approx(np.std(gains, ddof=1))
