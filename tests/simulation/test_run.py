"""Whole runs: what they write, and that neither kills nor damage change what they end with."""

import dataclasses
import inspect
import json
import shutil
import time

import jax
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax import files
from fedvlr_jax.analysis import metrics, popularity
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import Stopped, UserError
from fedvlr_jax.simulation import memory, run
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.programs import compiled, settings_of
from fedvlr_jax.simulation.simulation import build
from tests import worlds


class Killed(BaseException):
    """Stands in for a process that is gone: nothing of ours catches it."""


class KillAfter:
    """A reporter that dies at one of its calls."""

    def __init__(self, calls):
        self.left = calls
        self.notes = []

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def note(self, sentence):
        self.notes.append(sentence)

    def begin(self, *_):
        self._count()

    def advance(self, *_):
        self._count()

    def evaluated(self, *_):
        self._count()

    def end(self):
        self._count()

    def wants_stop(self):
        return False


@pytest.fixture(scope="module")
def data() -> Dataset:
    return worlds.dataset()


SETTINGS = {"rounds": 6, "eval_every": 2, "cohort": 9, "seed": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)


def outcome(out):
    """All numbers of a run but times and memory, and its arrays."""
    summary = json.loads((out / "summary.json").read_text())
    for volatile in ("timing", "memory"):
        summary.pop(volatile)
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    arrays = {}
    for name in ("rankings.npz", "per_user.npz"):
        with np.load(out / name, allow_pickle=False) as archive:
            arrays |= {f"{name}/{k}": archive[k] for k in archive.files}
    return summary, lines, arrays


def assert_same_outcome(a, b):
    for x, y in zip(outcome(a)[:2], outcome(b)[:2], strict=True):
        assert x == y
    x, y = outcome(a)[2], outcome(b)[2]
    assert x.keys() == y.keys()
    for key in x:
        np.testing.assert_array_equal(x[key], y[key], err_msg=key)


def test_a_run_writes_what_it_promises(whole, data):
    out = whole.out
    summary, lines, arrays = outcome(out)
    assert json.loads((out / "config.json").read_text())["cohort"] == 9
    assert [line["round"] for line in lines] == [2, 4, 6]
    assert {"train_loss", "valid/hr@50", "valid/warm/ndcg@50", "valid/cold/hr@10"} <= set(lines[0])
    assert summary["best_round"] in (2, 4, 6)
    assert summary["version"] == fedvlr_jax.__version__
    best = max(lines, key=lambda line: line["valid/warm/ndcg@50"])
    assert best["round"] == summary["best_round"]
    assert summary["valid"]["warm/ndcg@50"] == best["valid/warm/ndcg@50"]
    for name in ("hr@10", "hr@20", "hr@50", "ndcg@10", "ndcg@20", "ndcg@50"):
        for group in ("", "warm/", "cold/"):
            assert group + name in summary["test"]
    timing = whole.summary["timing"]
    assert timing["client_rounds_per_second"] > 0
    assert timing["total_seconds"] > timing["compile_seconds"] > 0
    assert whole.summary["memory"]["peak_rss_bytes"] > 1e8
    # d = 8, three views: router 24*8+8 + 8*3+3, head 8+1, 13 clients, 4 bytes.
    assert summary["parameters"]["private_per_client"] == 236
    assert whole.summary["memory"]["client_state_bytes"] == 13 * 256 * 4  # whole rows
    assert summary["communication"]["download_bytes_per_client_round"] == 40 * 3 * 8 * 4
    n = data.interactions.n_clients
    assert arrays["rankings.npz/topk"].shape == (n, 50)
    np.testing.assert_array_equal(arrays["rankings.npz/users"], np.arange(n))
    assert arrays["per_user.npz/view_weights"].shape == (n, 3)
    np.testing.assert_array_equal(arrays["per_user.npz/history_length"], worlds.LENGTHS)
    has_test = data.interactions.test >= 0
    rank = arrays["per_user.npz/rank"]
    np.testing.assert_array_equal(rank >= 0, has_test)
    for user in np.flatnonzero(has_test & (rank < 50)):
        assert arrays["rankings.npz/topk"][user, rank[user]] == data.interactions.test[user]


def test_rankings_come_again_from_the_best_checkpoint(whole, data):
    config = worlds.config(**SETTINGS)
    simulation = build(config, data)
    state = simulation.initial_state(seed=99)
    programs = compiled(settings_of(simulation, state))
    folder = whole.out / "checkpoints"
    assert (folder / "best").resolve().name == f"{whole.summary['best_round']:06d}"
    best, _ = Checkpoints(folder).load(whole.summary["best_round"], state)
    tastes, _ = programs["rankings"](
        best, simulation.population, simulation.features, simulation.rates
    )
    with np.load(whole.out / "rankings.npz") as archive:
        np.testing.assert_array_equal(tastes.top[: simulation.n_clients], archive["topk"])
    with np.load(whole.out / "per_user.npz") as archive:
        found = tastes.reliance[: simulation.n_clients]
        np.testing.assert_array_equal(found, archive["reliance"])


@pytest.mark.parametrize("calls", [1, 2, 4, 6, 10, 11])
def test_a_killed_run_ends_like_one_that_was_not(tmp_path, data, whole, calls):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, KillAfter(calls), data)
    assert not (out / "summary.json").exists()
    fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)
    assert_same_outcome(out, whole.out)


@pytest.mark.slow
def test_what_is_late_survives_a_kill(tmp_path, data):
    config = worlds.config(**SETTINGS, late=0.5)
    fedvlr_jax.train(config, tmp_path / "whole", dataset=data)
    with pytest.raises(Killed):
        fedvlr_jax.train(config, tmp_path / "killed", KillAfter(6), data)
    fedvlr_jax.train(config, tmp_path / "killed", dataset=data)
    assert_same_outcome(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("rounds", [1, 3, 4, 6])
def test_a_run_that_is_stopped_goes_on_from_that_round(tmp_path, data, whole, rounds):
    out, config = tmp_path / "run", worlds.config(**SETTINGS)
    with pytest.raises(Stopped, match=f"stopped after round {rounds}"):
        fedvlr_jax.train(config, out, worlds.StopAfter(rounds), data)
    checkpoints = Checkpoints(out / "checkpoints")
    assert checkpoints.rounds()[-1] == rounds
    assert not (out / "summary.json").exists()
    again = KillAfter(0)
    fedvlr_jax.train(config, out, again, data)
    assert f"{out}: going on after round {rounds}" in again.notes
    assert_same_outcome(out, whole.out)
    assert again.left == -(6 - rounds) - (6 - rounds + 1) // 2 - 2  # rounds, evaluations, both ends


SELDOM = {**SETTINGS, "checkpoint_seconds": 1e9}


def saved(monkeypatch):
    """Rounds that are saved from now on."""
    rounds, save = [], Checkpoints.save

    def noted(self, state, progress, *parts):
        rounds.append(progress.round)
        save(self, state, progress, *parts)

    monkeypatch.setattr(Checkpoints, "save", noted)
    return rounds


def test_small_states_are_saved_at_the_end_only(tmp_path, data, whole, monkeypatch):
    rounds = saved(monkeypatch)
    found = fedvlr_jax.train(worlds.config(**SELDOM), tmp_path / "run", dataset=data)
    best = found.summary["best_round"]
    assert rounds == sorted({best, 6})
    assert (tmp_path / "run" / "checkpoints" / "best").readlink().name == f"{best:06d}"
    assert_same_outcome(found.out, whole.out)


def test_a_kill_between_checkpoints_costs_time_only(tmp_path, data, whole):
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SELDOM), tmp_path / "run", KillAfter(7), data)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert Checkpoints(tmp_path / "run" / "checkpoints").rounds() == []
    fedvlr_jax.train(worlds.config(**SELDOM), tmp_path / "run", dataset=data)
    assert_same_outcome(tmp_path / "run", whole.out)


@pytest.mark.parametrize(("kept", "left"), [("all", 2), ("best", 1), ("none", 0)])
def test_a_finished_run_keeps_what_is_wanted_and_goes_on(tmp_path, data, whole, kept, left):
    def longer(rounds):
        settings = {**SETTINGS, "rounds": rounds, "keep_checkpoints": kept}
        return fedvlr_jax.train(worlds.config(**settings), tmp_path, dataset=data)

    best = longer(4).summary["best_round"]
    assert Checkpoints(tmp_path / "checkpoints").rounds() == sorted([best, 6 - best][:left])
    assert (tmp_path / "checkpoints" / "best").is_symlink() == (left > 0)
    with pytest.raises(UserError, match=r"--rounds=3: the run in .* has done 4"):
        longer(3)
    longer(6)
    assert_same_outcome(tmp_path, whole.out)


@pytest.mark.parametrize("rounds", [4, 5])
def test_what_is_best_is_saved_where_a_run_is_stopped(tmp_path, data, whole, rounds, monkeypatch):
    written = saved(monkeypatch)
    config = worlds.config(**SELDOM)
    with pytest.raises(Stopped):
        fedvlr_jax.train(config, tmp_path / "run", worlds.StopAfter(rounds), data)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["valid/warm/ndcg@50"])["round"]
    assert written == sorted({best, rounds})
    fedvlr_jax.train(config, tmp_path / "run", dataset=data)
    assert_same_outcome(tmp_path / "run", whole.out)


@pytest.mark.parametrize("function", ["write_arrays", "append_line", "write_json"])
def test_a_run_killed_while_writing_goes_on(tmp_path, data, whole, monkeypatch, function):
    out = tmp_path / "run"
    write = getattr(files, function)

    def dies(path, *args, **kwargs):
        if path.name in ("rankings.npz", "summary.json") or (
            len(path.parts) and path.suffix == ".jsonl"
        ):
            path.with_name(".tmp-" + path.name).write_bytes(b"half")
            raise Killed
        return write(path, *args, **kwargs)

    monkeypatch.setattr(files, function, dies)
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)
    monkeypatch.undo()
    fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)
    assert_same_outcome(out, whole.out)


def test_a_save_that_was_cut_off_is_cleaned_up(tmp_path, data, whole):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, KillAfter(7), data)
    cut = out / "checkpoints" / ".tmp-000004"
    shutil.copytree(out / "checkpoints" / "000002", cut)
    fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)
    assert not cut.exists()
    assert_same_outcome(out, whole.out)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "checksums"])
def test_a_damaged_checkpoint_is_stepped_over(tmp_path, data, whole, damage):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, KillAfter(8), data)
    checkpoint = out / "checkpoints" / "000004"
    victim = max(checkpoint.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(victim.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "cut":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "lose":
        victim.unlink()
    else:
        (checkpoint / "checksums.json").write_text("{")
    reporter = KillAfter(-1)
    fedvlr_jax.train(worlds.config(**SETTINGS), out, reporter, data)
    assert any("000004" in note and "damaged" in note for note in reporter.notes)
    assert any("going on after round 2" in note for note in reporter.notes)
    assert_same_outcome(out, whole.out)


def test_nothing_but_damage_is_said_not_hidden(tmp_path, data):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, KillAfter(5), data)
    for checksums in out.rglob("checksums.json"):
        checksums.unlink()
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)


def test_a_finished_run_is_left_alone_and_can_be_extended(tmp_path, data, whole):
    out = tmp_path / "run"
    settings = SETTINGS | {"rounds": 4}
    fedvlr_jax.train(worlds.config(**settings), out, dataset=data)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != "config.json"}
    reporter = KillAfter(1)  # no round may be trained
    again = fedvlr_jax.train(worlds.config(**settings), out, reporter, data)
    assert again.summary == json.loads((out / "summary.json").read_text())
    assert any("finished" in note for note in reporter.notes)
    assert {p: p.stat().st_mtime_ns for p in before} == before

    fedvlr_jax.train(worlds.config(**SETTINGS), out, dataset=data)
    assert_same_outcome(out, whole.out)
    with pytest.raises(UserError, match=r"--rounds=4: the run in .* has done 6"):
        fedvlr_jax.train(worlds.config(**settings), out, dataset=data)


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"server_lr": 0.2}, {"variant": "mlp"}, {"views": "sum,gate"}], ids=str
)
def test_other_settings_are_refused(whole, data, change):
    (name,) = change
    with pytest.raises(UserError, match=f"another configuration's run .--{name} was"):
        fedvlr_jax.train(worlds.config(**(SETTINGS | change)), whole.out, dataset=data)


def test_other_data_is_refused(whole):
    with pytest.raises(UserError, match="the data behind it has changed"):
        fedvlr_jax.train(worlds.config(**SETTINGS), whole.out, dataset=worlds.dataset(seed=1))


def test_a_folder_of_something_else_is_refused(tmp_path, data):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        fedvlr_jax.train(worlds.config(), tmp_path, dataset=data)
    with pytest.raises(UserError, match="is a file"):
        fedvlr_jax.train(worlds.config(), tmp_path / "thesis.txt", dataset=data)
    with pytest.raises(UserError, match="cannot be written"):
        fedvlr_jax.train(worlds.config(), "/proc/run", dataset=data)
    (tmp_path / "thesis.txt").rename(tmp_path / "config.json")
    with pytest.raises(UserError, match="not readable as JSON"):
        fedvlr_jax.train(worlds.config(), tmp_path, dataset=data)


def test_an_extension_that_was_broken_off_can_be_taken_back(tmp_path, data):
    out = tmp_path / "run"
    short = worlds.config(rounds=2)
    first = fedvlr_jax.train(short, out, dataset=data)
    with pytest.raises(Killed):
        fedvlr_jax.train(worlds.config(rounds=8), out, KillAfter(2), data)
    assert not (out / "summary.json").exists()
    again = fedvlr_jax.train(short, out, dataset=data)
    assert again.summary["test"] == first.summary["test"]


def test_one_process_at_a_time(tmp_path, data):
    class Second(KillAfter):
        def evaluated(self, *_):
            with pytest.raises(UserError, match="another process is working in it"):
                fedvlr_jax.train(worlds.config(rounds=2), tmp_path / "run", dataset=data)
            self.tried = True

    second = Second(-1)
    fedvlr_jax.train(worlds.config(rounds=2), tmp_path / "run", second, data)
    assert second.tried


@pytest.mark.slow
@pytest.mark.parametrize("private_state", ["device", "host"])
def test_a_run_goes_on_with_another_layout(tmp_path, data, private_state):
    last = []
    for name, layouts in {
        "one": [{"devices": 1}],
        "two": [{"devices": 8, "chunk": 2, "buckets": 1, "wave": 8}, {"devices": 3, "host_gb": 1}],
    }.items():
        for rounds, layout in zip((4, 2)[: len(layouts)][::-1], layouts, strict=True):
            config = worlds.config(rounds=rounds, private_state=private_state, **layout)
            result = fedvlr_jax.train(config, tmp_path / name, dataset=data)
        last.append(outcome(result.out))
    (_, lines, arrays), (_, other_lines, other_arrays) = last
    assert other_lines[-1] == pytest.approx(lines[-1], abs=1e-3)
    np.testing.assert_array_equal(other_arrays["rankings.npz/topk"], arrays["rankings.npz/topk"])


def test_checkpoints_with_and_without_private_states_are_not_mixed(tmp_path, data):
    fedvlr_jax.train(worlds.config(rounds=2), tmp_path, dataset=data)
    config = worlds.config(rounds=4, private_state="host")
    with pytest.raises(UserError, match="--private_state was device, now host"):
        fedvlr_jax.train(config, tmp_path, dataset=data)


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path, data, monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: 10_000)
    for settings, expected in (
        ({"private_state": "device"}, "the private state of 13 clients takes .* at most "),
        ({"private_state": "host", "chunk": 6}, "a chunk of 6 clients takes about .*; expected"),
    ):
        with pytest.raises(UserError, match=f"out of device memory: .*{expected}"):
            fedvlr_jax.train(worlds.config(**settings), tmp_path / "run", dataset=data)
    assert not (tmp_path / "run").exists()


def test_running_out_of_device_memory_is_a_sentence(tmp_path, data):
    class Exhausted(KillAfter):
        def advance(self, *_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    config = worlds.config(rounds=2, chunk=6)
    with pytest.raises(UserError, match=r"a chunk of 6 clients .*; expected --chunk=3 or less"):
        fedvlr_jax.train(config, tmp_path, Exhausted(99), dataset=data)


def test_an_evaluated_sample_is_compared_with_itself(tmp_path, data):
    config = worlds.config(rounds=2, eval_clients=6)
    result = fedvlr_jax.train(config, tmp_path / "run", dataset=data)
    with np.load(result.out / "per_user.npz") as archive:
        users = archive["user"]
    assert len(users) == 6
    ranks = popularity.held_out_ranks(data.interactions, data.interactions.valid, seed=0)
    warm = data.interactions.popularity[data.interactions.valid] > 0
    expected = metrics.from_ranks(ranks[users], warm[users])
    assert result.summary["popularity"]["valid"] == expected


def test_a_sample_without_validation_items_is_refused(tmp_path, data):
    valid = np.full_like(data.interactions.valid, -1)
    valid[3] = data.interactions.valid[3]
    poor = dataclasses.replace(
        data, interactions=dataclasses.replace(data.interactions, valid=valid)
    )
    # With this seed the one client that is evaluated is not the one with a validation item.
    config = worlds.config(rounds=1, eval_clients=1, seed=1)
    with pytest.raises(UserError, match="--eval_clients=1: none of the clients sampled"):
        fedvlr_jax.train(config, tmp_path / "run", dataset=poor)
    assert not (tmp_path / "run").exists()


def test_a_cohort_larger_than_the_data_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="--cohort=14: expected at most the 13 clients"):
        fedvlr_jax.train(worlds.config(cohort=14), tmp_path / "run", dataset=data)


def test_patience_stops_a_run(tmp_path, data):
    reporter = KillAfter(-1)
    still = {"server_lr": 0.0, "client_lr": 0.0, "router_lr": 0.0}
    config = worlds.config(rounds=40, eval_every=1, patience=2, **still)
    result = fedvlr_jax.train(config, tmp_path / "run", reporter, data)
    # Nothing is learned, so the first evaluation stays the best (the earliest wins ties).
    assert result.summary["best_round"] == 1
    assert result.summary["rounds_done"] == 3
    assert result.summary["stopped_early"]
    assert any("stopped at round 3" in note for note in reporter.notes)
    reporter = KillAfter(1)
    fedvlr_jax.train(config, tmp_path / "run", reporter, data)
    assert any("finished" in note for note in reporter.notes)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path, data):
    out = tmp_path / "run"
    fedvlr_jax.train(worlds.config(rounds=2), out, dataset=data)
    # The same run going on, with one client's state spoiled on disk but checked in as whole.
    checkpoints = Checkpoints(out / "checkpoints")
    simulation = build(worlds.config(rounds=6), data)
    state, progress = checkpoints.load(2, simulation.initial_state(0))
    shutil.rmtree(out / "checkpoints" / "000002")
    checkpoints.save(state._replace(private=state.private.at[4, 0].set(np.nan)), progress)
    with pytest.raises(UserError, match=r"^round 3: .*not finite.*checkpoint: round 2$"):
        fedvlr_jax.train(worlds.config(rounds=6), out, dataset=data)
    assert Checkpoints(out / "checkpoints").rounds() == [2]


def test_divergence_in_the_first_rounds(tmp_path, data):
    with pytest.raises(UserError, match=r"round [12]: .*--server_lr.*none, it was too early"):
        fedvlr_jax.train(worlds.config(client_lr=3e38), tmp_path / "run", dataset=data)


def test_a_run_compiles_its_round_once(tmp_path, data, caplog):
    config = worlds.config(rounds=6, eval_every=3, dim=7)  # a size no other test has compiled
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        told = [KillAfter(10**6) for _ in range(2)]
        fedvlr_jax.train(config, tmp_path / "run", told[0], data)
        names = [r.getMessage() for r in caplog.records if "XLA compilation" in r.getMessage()]
        assert sum("federated_round" in name for name in names) == 1
        caplog.clear()
        # Other rates and another seed find the same programs.
        other = worlds.config(rounds=6, eval_every=3, dim=7, server_lr=0.02, seed=8)
        fedvlr_jax.train(other, tmp_path / "other", told[1], data)
        names = [r.getMessage() for r in caplog.records if "XLA compilation" in r.getMessage()]
        assert not any("federated_round" in name or "rank" in name for name in names)
    said = [sum(note.startswith("compiling") for note in one.notes) for one in told]
    assert said == [1, 0]  # where nothing is compiled, nothing is said


def test_nothing_moves_between_host_and_device_in_the_loop(data):
    # The guard that a run sets is the check; this shows that the guard would notice.
    simulation = build(worlds.config(), data)
    state = simulation.initial_state(0)
    programs = compiled(settings_of(simulation, state))
    with jax.transfer_guard("disallow"):
        state, _ = programs["round"](
            state, simulation.population, simulation.features, simulation.rates
        )
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            jax.jit(lambda x: x + 1)(np.float32(1))


def test_speed_in_the_summary_is_wall_clock(tmp_path, data):
    clock = time.perf_counter()
    config = worlds.config(rounds=30, eval_every=30)
    result = fedvlr_jax.train(config, tmp_path / "run", dataset=data)
    elapsed = time.perf_counter() - clock
    timing = result.summary["timing"]
    trained = 13 * 29 / timing["client_rounds_per_second"]
    assert 0 < trained < elapsed
    assert timing["round_seconds_median"] * 15 < trained + 1e-9


def test_one_modality_is_enough_for_the_mixed_views(tmp_path):
    data = worlds.dataset(modalities=1)
    result = fedvlr_jax.train(worlds.config(rounds=1), tmp_path / "run", dataset=data)
    assert np.isfinite(result.summary["valid"]["ndcg@50"])
    with pytest.raises(UserError, match="--views=text: the data set small has no text features"):
        fedvlr_jax.train(worlds.config(views="sum,text"), tmp_path / "other", dataset=data)
    assert not (tmp_path / "other").exists()


def test_permuted_test_items_change_nothing_but_the_test_numbers(tmp_path, data, whole):
    found = data.interactions
    # Hand every test item to the next client that does not have it in train or validation.
    rng = np.random.default_rng(0)
    has = np.flatnonzero(found.test >= 0)
    taken = [{*h.tolist(), v} for h, v in zip(worlds.histories(data), found.valid, strict=True)]
    for _ in range(10_000):
        permuted = rng.permutation(found.test[has])
        free = all(i not in taken[u] for u, i in zip(has, permuted, strict=True))
        if free and (permuted != found.test[has]).any():
            break
    else:
        raise AssertionError("no permutation found")
    test = found.test.copy()
    test[has] = permuted
    other = dataclasses.replace(data, interactions=dataclasses.replace(found, test=test))
    result = fedvlr_jax.train(worlds.config(**SETTINGS), tmp_path / "run", dataset=other)
    assert result.summary["best_round"] == whole.summary["best_round"]
    for name, array in outcome(result.out)[2].items():
        if name.startswith("rankings"):
            np.testing.assert_array_equal(array, outcome(whole.out)[2][name])


def test_the_default_folder_is_named_after_the_settings():
    a, b, c = (run.default_out(worlds.config(**s)) for s in ({}, {"rounds": 9}, {"seed": 1}))
    assert a == b != c
    assert a.parent.name == "runs"
    assert "synthetic-fedvlr-seed0-" in a.name


class Heard(fedvlr_jax.Callback):
    """A user's own: remembers what it hears, and ends the run at the third evaluation."""

    def __init__(self):
        self.rounds = []

    def begin(self, run):
        self.rounds.append(run.progress.round)

    def evaluated(self, run):
        self.rounds.append(run.progress.lines[-1]["round"])
        assert int(run.states.state.round) == self.rounds[-1]
        return "enough" if len(run.progress.lines) == 3 else None


def test_callbacks_of_a_user_hear_of_a_run_and_may_end_it(tmp_path, data):
    config, heard = worlds.config(rounds=5, eval_every=1), Heard()
    with pytest.raises(fedvlr_jax.PrunedError, match=r"^enough$"):
        fedvlr_jax.train(config, tmp_path / "run", dataset=data, callbacks=[heard])
    assert heard.rounds == [0, 1, 2, 3]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "run" / "summary.json").exists()
    with pytest.raises(UserError, match=r"^--callbacks=.*expected instances of fedvlr_jax\.Callb"):
        inspect.unwrap(fedvlr_jax.train)(
            config, tmp_path / "other", dataset=data, callbacks=[Heard]
        )
    assert not (tmp_path / "other").exists()
