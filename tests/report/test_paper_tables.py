import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.analysis.statistics import spread
from fedvlr_jax.references.choose import Reference
from fedvlr_jax.report import drawing, paper_page, paper_tables, sections, tabulate
from fedvlr_jax.runs.study import Combination, Found
from fedvlr_jax.simulation.run import Result
from fedvlr_jax.study import cold_start
from tests import worlds

NAMES = [f"{g}{m}@50" for g in ("", "warm/", "cold/") for m in ("hr", "ndcg")]


def a_run(folder: Path, value: float, ranks) -> Result:
    folder.mkdir(parents=True)
    warm = np.array([True, True, False, True])
    np.savez(
        folder / "per_user.npz",
        user=np.arange(4),
        rank=np.array(ranks),
        warm=warm,
        history_length=np.array([3, 5, 8, 20]),
        reliance=np.tile([0.5, 0.3, 0.2], (4, 1)) + value / 100,
    )
    line = {"round": 5, "valid/warm/ndcg@50": value}
    (folder / "metrics.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    (folder / "config.json").write_text(json.dumps({"seed": int(folder.name[1:])}))
    scores = dict.fromkeys(NAMES, value) | {"cold/hr@50": None}
    counts = {"private_per_client": 65, "server": 1000}
    protocol = Protocol(
        n_items=100, n_views=3, dim=8, network=0, gamma=50, pool=0, draws=4, local=False
    )
    sent = {"protocol": vars(protocol)}
    summary = {"valid": scores, "test": scores, "parameters": counts, "communication": sent}
    return Result(summary, folder)


@pytest.fixture
def found(tmp_path):
    runs = {
        "fedvlr": [a_run(tmp_path / f"f{s}", 10.0 + s, [0, 1, 5, 2]) for s in range(3)],
        "mlp": [a_run(tmp_path / f"m{s}", 8.0, [60, 4, 5, 3]) for s in range(3)],
    }
    point = ("server_lr", 1e-3), ("client_lr", 0.1)
    return [Found(Combination("fcf", v), point, tuple(r)) for v, r in runs.items()]


def test_accuracy_is_mean_and_deviation_over_seeds_beside_the_references(found):
    scores = dict.fromkeys(NAMES, 5.0)
    references = [Reference("EASE", "penalty 10", scores, np.zeros(4, int), scores)]
    table = paper_tables.accuracy_table(found, references).set_index("variant")
    assert table.loc["fedvlr", "warm/ndcg@50"] == 11
    assert table.loc["fedvlr", "warm/ndcg@50 sd"] == pytest.approx(1.0)
    assert table.loc["mlp", "server_lr"] == 1e-3
    assert np.isnan(table.loc["fedvlr", "cold/hr@50"])
    assert table.loc["centralized", "ndcg@50"] == 5
    assert np.isnan(table.loc["centralized", "ndcg@50 sd"])


def test_significance_is_over_warm_users(found):
    (row,) = paper_tables.significance_table(found, "fedvlr", "mlp").to_dict("records")
    gain = [1, 1 / np.log2(3) - 1 / np.log2(6), 1 / np.log2(4) - 1 / np.log2(5)]
    assert row["difference"] == "fedvlr - mlp"
    assert row["users"] == 3
    assert row["mean"] == pytest.approx(100 * np.mean(gain))
    assert paper_tables.significance_table(found[:1], "fedvlr", "mlp").empty


def test_parameters_are_in_thousands_beside_the_papers(found):
    table = paper_tables.parameter_table(found, "KU")
    assert table["private"].tolist() == [0.065, 0.065]
    assert table["client"].tolist() == [0.065 + 2.4] * 2
    assert table["server"].tolist() == [1.0, 1.0]
    assert table["client, the paper's"].tolist() == [120, 107]
    assert paper_tables.parameter_table(found, "other")["client, the paper's"].isna().all()


def test_communication_is_told_for_histories_that_fit(found):
    row = paper_tables.communication_table(found).iloc[0]
    assert row["down"] == 100 * 3 * 8 * 4 / 1e3
    assert row["up, paper"] == (100 * 8 + 50 + 2) * 4 / 1e3
    assert 0 < row["up, 5"] < row["up, 20"] < row["down"] + 1
    assert "up, 200" not in row


def test_curves_have_a_row_per_seed_and_evaluation(found):
    table = paper_tables.curves_table(found)
    assert len(table) == 2 * 3 * 2
    assert table.query("variant == 'fedvlr' and seed == 2")["warm/ndcg@50"].tolist() == [12, 12]


def test_reliance_is_averaged_over_seeds_and_gain_is_of_warm_users(found):
    table = paper_tables.reliance_table(found[:1])
    assert table["user"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(table["image"], 0.5 + 0.11)
    assert table["gain"].isna().tolist() == [False, False, True, False]
    assert table["gain"][0] == 100


def test_changes_are_named(found):
    table = paper_tables.changes_table("removed", [("nothing", found[0]), ("id", found[1])])
    assert table["removed"].tolist() == ["nothing", "id"]
    assert table["warm/ndcg@50"].tolist() == [11, 8]


def test_data_table_counts_held_out_items():
    data = worlds.dataset()
    (row,) = paper_tables.data_table(data).to_dict("records")
    inter = data.interactions
    assert row["interactions"] == inter.lengths.sum() + 13 + (inter.test >= 0).sum()
    assert row["sparsity %"] == pytest.approx(100 * (1 - row["interactions"] / (13 * 40)))
    assert row["warm test users"] + row["cold test users"] == (inter.test >= 0).sum()


def test_tables_are_written_twice(tmp_path, found):
    table = paper_tables.accuracy_table(found, [])
    tabulate.write(table, tmp_path, "accuracy")
    read = pd.read_csv(tmp_path / "accuracy.csv")
    pd.testing.assert_frame_equal(read, table.astype(read.dtypes))
    lines = (tmp_path / "accuracy.md").read_text().splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def empty(folder: Path, users: int) -> Result:
    """A run over so many users, of whom none is warm and nobody has a test item."""
    run = a_run(folder, 1.0, [0, 1, 5, 2])
    np.savez(
        folder / "per_user.npz",
        user=np.arange(users),
        rank=np.full(users, -1),
        warm=np.zeros(users, bool),
        history_length=np.full(users, 7),
        reliance=np.full((users, 3), 1 / 3),
        view_weights=np.full((users, 3), 1 / 3),
    )
    (folder / "metrics.jsonl").write_text(json.dumps({"round": 5, "valid/warm/ndcg@50": None}))
    nothing = dict.fromkeys(NAMES)
    return Result(run.summary | {"valid": nothing, "test": nothing}, folder)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("users", [1, 4])
def test_groups_of_nobody_are_empty_cells_everywhere(tmp_path, users, seeds):
    found = [
        Found(
            Combination("fcf", variant),
            (("server_lr", 0.1), ("client_lr", 0.1)),
            tuple(empty(tmp_path / f"{variant}" / f"s{seed}", users) for seed in range(seeds)),
        )
        for variant in ("fedvlr", "mlp")
    ]
    nothing = dict.fromkeys(NAMES)
    central = [Reference("EASE", "penalty 1", nothing, np.full(users, -1), nothing)]
    made = {
        "accuracy": paper_tables.accuracy_table(found, central),
        "significance": paper_tables.significance_table(found, "fedvlr", "mlp"),
        "history_length": cold_start.by_history_length(found),
        "item_popularity": cold_start.by_item_popularity(found, worlds.dataset().interactions),
        "parameters": paper_tables.parameter_table(found, "KU"),
        "communication": paper_tables.communication_table(found),
        "curves": paper_tables.curves_table(found),
        "reliance": paper_tables.reliance_table(found[:1]),
        "removal": paper_tables.changes_table("removed", [("nothing", found[0]), ("id", found[1])]),
        "noise": paper_tables.changes_table("noise", [("0", found[0])]),
        "newcomers": pd.DataFrame(
            [
                paper_tables.names_of(found[0])
                | {"epochs": epochs}
                | spread("ndcg@50", [None] * seeds)
                for epochs in (0, 5)
            ]
        ),
    }
    shown = {name: table for name, table in made.items() if len(table)}
    assert set(made) - set(shown) <= {"history_length", "item_popularity"}
    assert shown["accuracy"]["warm/ndcg@50"].isna().all()
    assert shown["accuracy"]["valid warm/ndcg@50"].isna().all()
    assert shown["significance"]["users"].tolist() == [0]
    assert shown["significance"][["mean", "low", "high", "p_value"]].isna().all(axis=None)
    for name, table in shown.items():
        tabulate.write(table, tmp_path, name)
        written = (tmp_path / f"{name}.csv").read_text() + (tmp_path / f"{name}.md").read_text()
        assert "nan" not in written.lower()
        assert "none" not in written.lower()
    charts = paper_page.charts(shown, seeds)
    for name, chart in charts.items():
        drawing.write(chart, tmp_path / f"{name}.png")
    page = sections.page("Nobody", {}, paper_page.sections(shown, charts, seeds))
    page = page.split("plotly.js v")[0]
    assert ">nan<" not in page.lower()
    assert ">none<" not in page.lower()
    assert len(list(tmp_path.glob("*.png"))) == len(charts) == 5
    assert page.count('class="plot"') == sum(len(chart.panels) for chart in charts.values())


def test_references_are_compared_user_by_user(found):
    ranks = np.array([3, 0, 9, 1])
    reference = Reference("EASE", "penalty 1", {}, ranks, {})
    table = paper_tables.references_table(found[:1], [reference])
    assert table[["variant", "minus"]].to_numpy().tolist() == [["fedvlr", "EASE"]]
    warm = [0, 1, 3]
    mine = [1 / np.log2(rank + 2) for rank in np.array([0, 1, 5, 2])[warm]]
    theirs = [1 / np.log2(rank + 2) for rank in ranks[warm]]
    assert table["mean"][0] == pytest.approx(100 * (np.mean(mine) - np.mean(theirs)))
    assert table["users"][0] == len(warm)
