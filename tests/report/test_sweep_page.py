"""The report of a sweep: which rows compete, what compilation counts, rounds without a loss."""

import json

import matplotlib.image
import pandas as pd
import pytest

from fedvlr_jax.report import drawing, seeds, sweep_page, sweep_results
from fedvlr_jax.report.sections import page as as_html
from fedvlr_jax.runs import declare
from fedvlr_jax.runs.ledger import Row


def summary(**parts):
    return {
        "best_round": 4,
        "best_is_last": False,
        "participation": {"trained": 40},
        "test": {"warm/ndcg@50": 10.0, "warm/hr@50": 20.0},
        "popularity": {"test": {"warm/ndcg@50": 5.0}},
        "timing": {
            "round_seconds_median": 0.1,
            "client_rounds_per_second": 100.0,
            "compile_seconds": 0.0,
            "total_seconds": 20.0,
        },
        "memory": {"peak_rss_bytes": 6 * 10**8, "client_state_bytes": 10**6},
        "communication": {
            "download_bytes_per_client_round": 1000,
            "upload_bytes_per_client_round": 500.0,
        },
        "parameters": {"server": 10, "private_per_client": 5},
    } | parts


def swept(lines, summaries=None, number=summary):
    axes = declare.axes(lines)
    configs = declare.configs({"rounds": 4}, axes)
    runs = {declare.run_name(config, axes): config for config in configs}
    rows = {
        name: Row("finished", config.flat(), number(**(summaries or {}).get(k, {})))
        for k, (name, config) in enumerate(runs.items())
    }
    return runs, axes, sweep_results.results(rows)


def report(table, runs, axes, out):
    return sweep_page.sections(sweep_page.prepared(table, runs, axes), runs, axes, out)


COMPETING = [
    (["clients=10,20"], ("clients",)),
    (["clients=10,20", "variant=mlp,id"], ("clients",)),
    (["variant=mlp,id"], ()),
    (["dim=8,16", "seed=0,1"], ()),
    (["items=60,80"], ("items",)),
    (["items=60,80", "clients=10,20"], ("items", "clients")),
    (["history_length=4,8", "server_lr=0.1,0.2"], ("history_length",)),
    (["eval_clients=5,6"], ("eval_clients",)),
    (["preference_concentration=0.1,1"], ("preference_concentration",)),
    (["dropout=0,0.5"], ()),
    (["backbone=fcf,fedavg", "cohort=5,6"], ()),
]


@pytest.mark.parametrize(("lines", "among"), COMPETING, ids=str)
def test_only_runs_of_one_population_compete(lines, among, tmp_path):
    runs, axes, table = swept(lines)
    headline = report(table, runs, axes, tmp_path)[0]
    assert headline.title == "Results"
    assert headline.among == among


def test_a_program_is_compiled_once_whoever_has_done_it(tmp_path):
    def spent(seconds, peak):
        timing = summary()["timing"] | {"compile_seconds": seconds}
        return {"timing": timing, "memory": summary()["memory"] | {"peak_rss_bytes": peak}}

    runs, axes, table = swept(
        ["clients=10,20", "server_lr=0.1,0.2", "seed=0,1,2"],
        {0: spent(9.0, 8e8), 6: spent(12.0, 9e8)},
    )
    (costs,) = (s.table for s in report(table, runs, axes, tmp_path) if s.title.startswith("Comm"))
    assert costs["compilation of the program, once, s"].tolist() == [9.0, 9.0, 12.0, 12.0]
    assert costs["compilation of the program, once, s low"].isna().all()
    assert costs["peak memory, GB"].tolist() == pytest.approx([0.8, 0.8, 0.9, 0.9])


@pytest.mark.parametrize("losses", [[[None, None]], [[0.5, None], [None, 0.4]], [[0.5, 0.4]] * 3])
def test_rounds_without_a_loss_have_no_point(losses, tmp_path):
    numbers = ",".join(map(str, range(len(losses))))
    runs, axes, table = swept([f"seed={numbers}"])
    for run, of_run in zip(runs, losses, strict=True):
        folder = tmp_path / "runs" / run
        folder.mkdir(parents=True)
        lines = [
            {"round": 2 * k + 2, "train_loss": loss, "valid/warm/ndcg@50": 10.0 + k}
            for k, loss in enumerate(of_run)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    parts = report(table, runs, axes, tmp_path)
    (curves,) = (s for s in parts if s.title == "Learning curves")
    drawn = curves.charts[0].panels[1].series[-1]
    everywhere = [k for k in range(2) if all(one[k] is not None for one in losses)]
    assert drawn.x == [2 * k + 2 for k in everywhere]
    assert "nan" not in as_html("x", {}, parts).lower().split("plotly.js")[0]


def test_a_sweep_in_which_nobody_came_is_drawn_and_told(tmp_path):
    nobody = {
        "best_is_last": True,
        "participation": {"trained": 0},
        "timing": summary()["timing"] | {"client_rounds_per_second": 0.0},
        "communication": {
            "download_bytes_per_client_round": 1000,
            "upload_bytes_per_client_round": None,
        },
    }
    runs, axes, table = swept(["clients=10,20,30"], dict.fromkeys(range(3), nobody))
    assert sweep_results.remarks(table) == [
        "in 3 of 3 runs no client trained (--dropout): nothing was learned"
    ]
    prepared = sweep_page.prepared(table, runs, axes)
    drawing.write(sweep_page.over(prepared, axes)[0], tmp_path / "scaling.png")
    assert "no client trained" in as_html("x", {}, report(table, runs, axes, tmp_path))


REMARKS = [
    ({}, []),
    ({0: {"best_is_last": True}}, ["in 1 of 3 runs the best round is the last one"]),
    ({k: {"best_is_last": True} for k in range(3)}, ["in 3 of 3 runs the best round is the last"]),
    ({1: {"participation": {"trained": 0}}}, ["in 1 of 3 runs no client trained"]),
    ({1: {"participation": {"trained": None}}}, []),
    ({1: {"participation": {"trained": 0}, "best_is_last": True}}, ["in 1 of 3 runs no client"]),
    (
        {0: {"best_is_last": True}, 1: {"participation": {"trained": 0}}},
        ["in 1 of 3 runs the best round is the last one", "in 1 of 3 runs no client trained"],
    ),
]


def test_what_runs_were_trained_on_is_told_once():
    cpu = {"version": "0.12.0", "platform": "cpu", "device_kind": "cpu"}
    gpu = {"version": "0.7.2", "platform": "gpu", "device_kind": "NVIDIA H100 80GB HBM3"}
    parts = {0: {"jax": cpu, "devices": 2}, 1: {"jax": gpu, "devices": 8}}
    parts |= {2: {"jax": gpu, "devices": 8}}
    _, _, table = swept(["clients=10,20,30"], parts)
    said = "2 x cpu (cpu, jax 0.12.0); 8 x NVIDIA H100 80GB HBM3 (gpu, jax 0.7.2)"
    assert sweep_results.machines(table) == said
    older = {0: {"jax": {"version": "0.10.2", "platform": "cpu"}, "devices": 2}}
    _, _, table = swept(["clients=10"], older)
    assert sweep_results.machines(table) == "2 x unknown (cpu, jax 0.10.2)"
    _, _, table = swept(["clients=10"], {0: {"devices": 2}})
    assert sweep_results.machines(table) == "2 x unknown (unknown, jax unknown)"


@pytest.mark.parametrize(("parts", "said"), REMARKS)
def test_remarks_count_runs(parts, said):
    found = sweep_results.remarks(swept(["clients=10,20,30"], parts)[2])
    assert len(found) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(found, said, strict=True))


def test_runs_of_older_versions_and_failed_ones_have_no_remarks():
    def older(**parts):
        found = summary(**parts)
        del found["best_is_last"], found["participation"]
        return found

    assert sweep_results.remarks(swept(["clients=10,20"], number=older)[2]) == []
    failed = pd.DataFrame([{"run": "x", "status": "failed", "reason": "y"}])
    assert sweep_results.remarks(failed) == []


DRAWN = [
    # what is swept, what goes along x, how many series show accuracy
    (["clients=10"], "", 2),
    (["clients=10,20"], "number of clients", 2),
    (["clients=10", "server_lr=0.1,0.2", "seed=0,1"], "server_lr", 2),
    (["server_lr=0.1,0.2", "clients=10,20", "seed=0,1"], "number of clients", 3),
    (["variant=mlp,id", "backbone=fcf,fedavg"], "variant, backbone", 2),
    (["variant=mlp,id", "dropout=0,0.5"], "dropout", 3),
    (["clients=10,20", "variant=mlp,id", "server_lr=lin:0.1:0.5:30"], "number of clients", 61),
]


@pytest.mark.parametrize(("lines", "x", "series"), DRAWN, ids=str)
def test_the_picture_has_the_setting_of_the_report_along_x(lines, x, series, tmp_path):
    runs, axes, table = swept(lines)
    table = sweep_page.prepared(table, runs, axes)
    chart, _ = sweep_page.over(table, axes)
    assert {panel.x.name for panel in chart.panels} == {x}
    assert len(chart.panels[-1].series) == series
    drawing.write(chart, tmp_path / "scaling.png")
    assert matplotlib.image.imread(tmp_path / "scaling.png").shape[0] > 500
    if seeds.varied(axes):
        parts = sweep_page.sections(table, runs, axes, tmp_path)
        (over,) = (part for part in parts if part.title.startswith(("Over ", "By ")))
        assert over.charts == (chart,)


def test_powers_are_those_of_the_runs():
    def timed(c):
        return {"timing": summary()["timing"] | {"round_seconds_median": 0.001 * c**1.5}}

    runs, axes, table = swept(["clients=10,20,40"], {k: timed(10 * 2**k) for k in range(3)})
    chart, (time, *_) = sweep_page.over(sweep_page.prepared(table, runs, axes), axes)
    assert time["what"] == "time of a round"
    assert time["power of clients"] == pytest.approx(1.5)
    fitted, line = chart.panels[0].series
    assert line.name == "time of a round (power 1.50)"
    assert fitted.y == pytest.approx(line.y, rel=1e-5)


@pytest.mark.parametrize("devices", [True, False])
def test_what_a_target_took_is_in_the_table_and_on_the_page(devices, tmp_path):
    target = "valid/warm/ndcg@50:0.5max"
    axes = declare.axes(["variant=mlp,id", "seed=0,1"])
    configs = declare.configs({"rounds": 4, "target": target}, axes)
    runs = {declare.run_name(config, axes): config for config in configs}
    for k, name in enumerate(runs):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        lines = [
            {
                **{"round": n, "train_loss": 1.0, "client_updates": 3 * n, "seconds": 1.0 * n},
                **{"download_bytes": 1e6 * n, "upload_bytes": 2e6 * n},
                "simulated_seconds": 3600.0 * n if devices else None,
                "valid/warm/ndcg@50": float(n * (k + 1)),
            }
            for n in range(1, 5)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
    rows = {
        name: Row("finished", config.flat(), summary(to_target=None))
        for name, config in runs.items()
    }
    table = sweep_results.to_targets(sweep_results.results(rows), runs, tmp_path)
    # The best run comes to 16, and the goal is 8: rounds 8, 4, 8/3 and 2, of which there are 4.
    by_name = table.set_index("run")
    rounds = [by_name.loc[name, "to_target/round"] for name in runs]
    assert pd.isna(rounds[0])
    assert rounds[1:] == [4, 3, 2]
    assert by_name["to_target/goal"].tolist() == [8.0] * 4
    assert by_name["target"].tolist() == [target] * 4
    parts = {part.title: part for part in report(table, runs, axes, tmp_path)}
    shown = parts["To the target"].table
    assert target in parts["To the target"].text
    assert shown["runs that got there, %"].tolist() == [50, 100]
    assert shown["rounds"].tolist()[1] == 2.5
    hours = "hours on clients' devices"
    assert (shown[hours].tolist()[1] == 2.5) if devices else (hours not in shown)
    assert pd.isna(shown["rounds"].tolist()[0])
    assert shown["up, MB"].tolist()[1] == 5.0


def measured_at(*cutoffs):
    test = {f"warm/{name}@{k}": 10.0 + k for k in cutoffs for name in ("ndcg", "hr")}
    return {"test": test, "popularity": {"test": {f"warm/ndcg@{k}": 5.0 for k in cutoffs}}}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [(((10, 20), (5, 10, 20)), 20), (((10, 50), (50,)), 50), (((5,), (7,)), 7), (((3,), (3,)), 3)],
)
def test_a_sweep_is_shown_at_a_k_that_its_runs_have(asked, shown, tmp_path):
    summaries = {k: measured_at(*cutoffs) for k, cutoffs in enumerate(asked)}
    runs, axes, table = swept(["clients=10,20"], summaries)
    assert seeds.cutoff(table) == shown
    page = as_html("Sweep", {}, report(table, runs, axes, tmp_path))
    assert f"warm NDCG@{shown}, %" in page
    assert f"test NDCG@{shown}, warm (%)" in page
    assert f"warm HR@{shown} %" in sweep_results.shown(table, axes)


def test_a_sweep_over_cutoffs_is_shown(tmp_path):
    runs, axes, table = swept(["cutoffs=5, 10|10"], {0: measured_at(5, 10), 1: measured_at(10)})
    assert list(runs) == ["cutoffs=5+10", "cutoffs=10"]
    assert "warm NDCG@10, %" in as_html("Sweep", {}, report(table, runs, axes, tmp_path))
