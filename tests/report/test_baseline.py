"""Whether a setting helps, by runs on disk whose users' ranks are made up."""

import json

import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.analysis.statistics import gains, paired
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import baseline, seeds
from fedvlr_jax.report.baseline import Baseline
from fedvlr_jax.report.sections import page
from fedvlr_jax.runs import declare

USERS = 30
MLP = Baseline("variant", "mlp")


def ranks(seed, better):
    return np.maximum(np.random.default_rng(seed).integers(0, 60, USERS) - better, 0)


def swept(folder, lines, better, fingerprints=None, missing=()):
    """(axes, a row per run) of runs in a folder; `better` gives ranks by the first value."""
    axes = declare.axes(lines)
    rows = []
    for config in declare.configs({"rounds": 4}, axes):
        flat, name = config.flat(), declare.run_name(config, axes)
        out = folder / name
        out.mkdir(parents=True)
        data = (fingerprints or {}).get(flat["variant"], str(flat["clients"]))
        (out / "config.json").write_text(json.dumps(flat | {"data_fingerprint": data}))
        np.savez(
            out / "per_user.npz",
            user=np.arange(USERS),
            rank=ranks(flat["seed"], better[flat["variant"]]),
            warm=np.arange(USERS) % 3 > 0,
        )
        status = "failed" if name in missing else "finished"
        rows.append(flat | {"run": name, "status": status})
    return axes, pd.DataFrame(rows)


LINES = ["variant=fedvlr,mlp,id", "clients=100,200", "seed=0,1"]
BETTER = {"fedvlr": 15, "mlp": 3, "id": 0}


def test_every_combination_is_compared_with_the_one_that_differs_in_the_setting(tmp_path):
    axes, table = swept(tmp_path, LINES, BETTER)
    found = baseline.differences(table, axes, MLP, tmp_path)
    assert found[["variant", "clients"]].to_numpy().tolist() == [
        *(["fedvlr", 100], ["fedvlr", 200], ["id", 100], ["id", 200])
    ]
    assert found["difference"].tolist() == ["fedvlr - mlp"] * 2 + ["id - mlp"] * 2
    assert found["runs"].tolist() == [2] * 4
    warm = np.arange(USERS) % 3 > 0
    for variant, row in zip(("fedvlr", "fedvlr", "id", "id"), found.itertuples(), strict=True):
        sides = (np.stack([ranks(s, BETTER[v])[warm] for s in (0, 1)]) for v in (variant, "mlp"))
        expected = paired(*map(gains, sides))
        assert row[-5:] == tuple(vars(expected).values())
    assert (found["low"][:2] > 0).all()
    lines = baseline.sentences(found, axes, MLP)
    assert lines[1].startswith("fedvlr - mlp at clients 100: +")
    assert lines[1].endswith(" over 20 users, higher")
    assert len(lines) == 1 + 4


def test_a_counterpart_that_has_failed_is_missed(tmp_path):
    missing = {f"variant=mlp,clients=100,seed={s}" for s in (0, 1)}
    missing |= {"variant=fedvlr,clients=200,seed=1"}
    axes, table = swept(tmp_path, LINES, BETTER, missing=missing)
    found = baseline.differences(table, axes, MLP, tmp_path)
    assert found[["variant", "clients", "runs"]].to_numpy().tolist() == [
        *(["fedvlr", 200, 1], ["id", 200, 2])
    ]
    none = baseline.differences(table[table["variant"] == "mlp"], axes, MLP, tmp_path)
    assert none.empty
    assert baseline.sentences(none, axes, MLP) == [
        "compared with variant=mlp: no run has a counterpart"
    ]
    assert "nothing to show" in page("x", {}, [baseline.section(none, axes, MLP)])


def test_users_of_other_data_are_not_paired(tmp_path):
    axes, table = swept(tmp_path, LINES, BETTER, {"id": "other"})
    found = baseline.differences(table, axes, MLP, tmp_path)
    assert found["users"].tolist() == [20, 20, 0, 0]
    assert found["mean"].isna().tolist() == [False, False, True, True]
    assert "not comparable" in baseline.sentences(found, axes, MLP)[-1]
    assert "fedvlr - mlp at clients 100" in page("x", {}, [baseline.section(found, axes, MLP)])


@pytest.mark.parametrize(
    ("lines", "x"),
    [
        (LINES, "number of clients"),
        (["variant=fedvlr,mlp,id", "seed=0"], ""),
        (["variant=fedvlr,mlp,id", "backbone=fcf,fedavg", "seed=0"], ""),
        (["server_lr=0.1,0.2", "variant=fedvlr,mlp", "seed=0"], "server_lr"),
    ],
)
def test_the_chart_has_every_difference_and_zero(tmp_path, lines, x):
    axes, table = swept(tmp_path, lines, BETTER)
    found = baseline.differences(table, axes, MLP, tmp_path)
    (chart,) = baseline.section(found, axes, MLP).charts
    (panel,) = chart.panels
    assert panel.x.name == x
    *lines, zero = panel.series
    assert sorted(y for line in lines for y in line.y) == sorted(found["mean"])
    assert zero.y == [0, 0]


@pytest.mark.parametrize("value", ["variant=mlp", "server_lr=1e-1", "server_lr=0.10", "dim=8"])
def test_a_baseline_is_a_value_of_the_sweep(value):
    axes = declare.axes(["variant=mlp,id", "server_lr=0.1,0.2", "dim=8,16", "seed=0,1"])
    found = baseline.read(value, axes, 0)
    assert found.value in axes[found.setting]
    assert str(found) == value.replace("1e-1", "0.1").replace("0.10", "0.1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mlp", "expected a setting and one of its values in the sweep, like --baseline=variant="),
        ("", "expected a setting and one of its values in the sweep"),
        ("=mlp", "unknown setting (none)"),
        ("variants=mlp", "unknown setting variants, expected one that --help names, like --base"),
        ("variant=", "no run has this value, expected one of mlp, id"),
        ("variant=fedvlr", "no run has this value, expected one of mlp, id"),
        ("server_lr=x", "no run has this value, expected one of 0.1, 0.2"),
        ("server_lr=0.3", "no run has this value, expected one of 0.1, 0.2"),
        ("dim=8", "dim has one value in this sweep, expected one of variant, server_lr"),
        ("backbone=fcf", "backbone has one value in this sweep"),
        ("clients=100", "runs that differ in clients are of different users"),
        ("seed=0", "results are means over seeds"),
    ],
)
def test_mistakes_are_one_sentence(text, words):
    axes = declare.axes(
        ["variant=mlp,id", "server_lr=0.1,0.2", "clients=100,200", "dim=8", "seed=0,1"]
    )
    with pytest.raises(UserError) as caught:
        baseline.read(text, axes, 0)
    assert str(caught.value).startswith(f"--baseline={text}: ")
    assert words in str(caught.value)


def test_seeds_that_evaluate_other_users_are_refused():
    with pytest.raises(UserError, match="with --eval_clients=5 every seed evaluates other users"):
        baseline.read("variant=mlp", declare.axes(["variant=mlp,id", "seed=0,1"]), 5)
    assert baseline.read("variant=mlp", declare.axes(["variant=mlp,id", "seed=0"]), 5)
    assert seeds.varied(declare.axes(["variant=mlp,id"])) == ["variant"]
