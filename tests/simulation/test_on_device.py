import dataclasses
import json

import jax
import numpy as np
import pytest

from fedvlr_jax.errors import DivergedError, PrunedError, Stopped
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.callbacks import Prune
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.run import Result, train, train_together
from fedvlr_jax.simulation.simulation import build
from fedvlr_jax.simulation.traced import program_of
from tests import worlds

DATA = worlds.dataset()


def together(configs, folder, datasets=None):
    outs = [folder / str(k) for k in range(len(configs))]
    datasets = datasets or [DATA] * len(configs)
    return train_together(configs, outs, [Silent()] * len(configs), datasets)


def arrays(run, number, config):
    """Everything that a checkpoint holds."""
    simulation = build(config, DATA)
    like = simulation.initial_state(0)
    return jax.device_get(Checkpoints(run / "checkpoints").load(number, like)[0])


def check_equal(found, alone, config):
    """What one run of several has left is what it leaves alone."""
    lines = [(r.out / "metrics.jsonl").read_text().splitlines() for r in (found, alone)]
    for ours, theirs in zip(*(map(json.loads, part) for part in lines), strict=True):
        for name in theirs:
            if name != "seconds":
                same = theirs[name] and pytest.approx(theirs[name], rel=1e-4)
                assert ours[name] == same, name
    assert found.summary["best_round"] == alone.summary["best_round"]
    assert found.summary["test"] == pytest.approx(alone.summary["test"], rel=1e-6)
    ours, theirs = (arrays(r.out, r.summary["rounds_done"], config) for r in (found, alone))
    assert ours.round == theirs.round
    clients = len(worlds.LENGTHS)  # there are as many more rows as fill up the devices
    private = [state.private[:clients] for state in (ours, theirs)]
    for pair in (ours.key, theirs.key), (ours.server, theirs.server), private:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5),
            *pair,
        )
    kept = [np.load(r.out / "per_user.npz") for r in (found, alone)]
    for name in kept[0]:
        if kept[0][name].dtype.kind == "f":
            np.testing.assert_allclose(kept[0][name], kept[1][name], rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_array_equal(kept[0][name], kept[1][name])


SETTINGS = {
    "everybody": {},
    "cohorts": {"cohort": 5, "dropout": 0.3, "buckets": 2},
    "network": {"backbone": "fedncf", "variant": "mlp"},
    "own rows, local": {"backbone": "fedrap", "client_mode": "local"},
    "clipped": {"clip_norm": 0.5, "noise_multiplier": 0.1},
    "late": {"late": 0.3},
}


SLOW = ("everybody", "network", "own rows, local", "clipped", "late")


@pytest.mark.parametrize(
    ("name", "devices"),
    [("cohorts", 4)] + [pytest.param(name, 1, marks=pytest.mark.slow) for name in SLOW],
)
def test_runs_together_are_runs_alone(tmp_path, name, devices):
    settings = SETTINGS[name]
    configs = [
        worlds.config(**settings, devices=devices, seed=seed, client_lr=rate)
        for seed, rate in ((0, 0.5), (1, 0.5), (0, 0.1))
    ]
    for config, found in zip(configs[1:], together(configs, tmp_path)[1:], strict=True):
        alone = train(config, tmp_path / f"alone{config.method.client_lr}", dataset=DATA)
        check_equal(found, alone, config)


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        ({"cohort": 5, "variant": "id"}, 4),
        pytest.param({}, 1, marks=pytest.mark.slow),
        pytest.param({"backbone": "fedncf", "client_mode": "local"}, 2, marks=pytest.mark.slow),
    ],
)
def test_every_run_may_have_a_population_of_its_own(tmp_path, settings, devices):
    lengths = [worlds.LENGTHS, tuple(n + 2 for n in worlds.LENGTHS[::-1])]
    datasets = [
        dataclasses.replace(DATA, interactions=worlds.dataset(lengths=own, seed=seed).interactions)
        for seed, own in enumerate(lengths)
    ]
    configs = [worlds.config(**settings, devices=devices, seed=seed) for seed in (0, 1)]
    found = together(configs, tmp_path, datasets)
    for k, (config, data) in enumerate(zip(configs, datasets, strict=True)):
        check_equal(found[k], train(config, tmp_path / f"alone{k}", dataset=data), config)
    settings = [json.loads((one.out / "config.json").read_text()) for one in found]
    kept = [one["data_fingerprint"] for one in settings]
    assert kept == [data.fingerprint() for data in datasets]


def test_runs_go_on_apart_and_together_again(tmp_path):
    short = [worlds.config(seed=seed, rounds=rounds) for seed, rounds in ((0, 2), (1, 3))]
    together(short, tmp_path)
    train(worlds.config(seed=0, rounds=4), tmp_path / "0", dataset=DATA)
    configs = [worlds.config(seed=seed, rounds=6) for seed in (0, 1)]
    for config, found in zip(configs, together(configs, tmp_path), strict=True):
        alone = train(config, tmp_path / f"alone{config.schedule.seed}", dataset=DATA)
        assert found.summary["rounds_done"] == 6
        # Seed 1 was evaluated once more, after its third round.
        assert found.summary["valid"] == pytest.approx(alone.summary["valid"], rel=1e-4)


def test_runs_that_are_stopped_go_on(tmp_path):
    configs = [worlds.config(seed=seed) for seed in (0, 1)]
    outs = [tmp_path / str(k) for k in range(2)]
    with pytest.raises(Stopped, match="after round 3"):
        train_together(configs, outs, [worlds.StopAfter(3), Silent()], [DATA] * 2)
    assert [Checkpoints(out / "checkpoints").rounds()[-1] for out in outs] == [3, 3]
    whole = together(configs, tmp_path / "whole")
    for config, found, expected in zip(configs, together(configs, tmp_path), whole, strict=True):
        check_equal(found, expected, config)


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(tmp_path):
    configs = [worlds.config(seed=seed) for seed in (0, 1, 2)]
    train(configs[1], tmp_path / "1", dataset=DATA)
    before = (tmp_path / "1" / "summary.json").read_text()
    found = together(configs, tmp_path)
    assert [r.summary["timing"]["runs_together"] for r in found] == [3, 1, 3]
    assert (tmp_path / "1" / "summary.json").read_text() == before


def test_one_run_that_diverges_leaves_the_others_alone(tmp_path):
    configs = [worlds.config(seed=0, client_lr=rate) for rate in (1e30, 0.5)]
    diverged, found = together(configs, tmp_path)
    assert isinstance(diverged, DivergedError)
    assert "round" in str(diverged)
    assert not (tmp_path / "0" / "summary.json").exists()
    check_equal(found, train(configs[1], tmp_path / "alone", dataset=DATA), configs[1])


def test_a_run_that_stops_early_keeps_its_best_round(tmp_path):
    configs = [
        worlds.config(rounds=12, eval_every=1, patience=patience, server_lr=0.5)
        for patience in (1, 0)
    ]
    stopped, whole = together(configs, tmp_path)
    assert stopped.summary["stopped_early"]
    assert stopped.summary["rounds_done"] < whole.summary["rounds_done"] == 12
    alone = train(configs[0], tmp_path / "alone", dataset=DATA)
    check_equal(stopped, alone, configs[0])


def test_what_is_traced_may_differ():
    same = program_of(worlds.config())
    for change in (
        {"seed": 3},
        {"server_lr": 1e-4},
        {"own_lr": 0.3},
        {"dropout": 0.2},
        {"rounds": 9},
        {"patience": 2},
        {"preference_concentration": 10.0},
    ):
        assert program_of(worlds.config(**change)) == same, change
    for change in (
        {"late": 0.1},
        {"clip_norm": 1.0},
        {"gradient_noise": 0.1},
        {"dim": 4},
        {"precision": "high"},
        {"data_seed": 1},
    ):
        assert program_of(worlds.config(**change)) != same, change


def test_states_that_grow_with_histories_need_the_same_population():
    for pooled in ({"backbone": "pfedrec"}, {"negative_pool": 20}):
        few, many = (
            program_of(worlds.config(**pooled, preference_concentration=c)) for c in (0.1, 10.0)
        )
        assert few != many


def test_a_run_that_is_pruned_ends_and_the_others_go_on(tmp_path):
    configs = [worlds.config(rounds=4, eval_every=1, seed=seed) for seed in range(2)]
    whole = together(configs, tmp_path / "whole")
    heard = []

    def prune(lines):
        heard.append([line["round"] for line in lines])
        return "not good enough" if len(lines) == 2 else None

    outs = [tmp_path / str(k) for k in range(2)]
    silent = [Silent()] * 2
    ended, other = train_together(configs, outs, silent, [DATA] * 2, [[Prune(prune)], []])
    assert isinstance(ended, PrunedError)
    assert str(ended) == "not good enough"
    assert heard == [[1], [1, 2]]
    assert other.summary["test"] == whole[1].summary["test"]
    assert not (outs[0] / "summary.json").exists()
    # Who asks again hears of it again, also if a kill came between evaluation and judgement.
    (again,) = train_together(configs[:1], outs[:1], silent[:1], [DATA], [[Prune(lambda _: "no")]])
    assert isinstance(again, PrunedError)
    # A run in its last round is not pruned.
    late = [[Prune(lambda lines: "no" if len(lines) == 4 else None)]]
    (found,) = train_together(configs[:1], outs[:1], silent[:1], [DATA], late)
    assert isinstance(found, Result)
