"""What is done, by whom and how often; training itself is a stand-in here."""

import json
import threading

import pytest

from fedvlr_jax import data
from fedvlr_jax.errors import DivergedError, UnwritableError, UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.runs import declare, scheduler
from fedvlr_jax.runs.grid import Grid
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Ledger, Row
from fedvlr_jax.simulation.run import Result

AXES = {"variant": ("fedvlr", "mlp"), "seed": (0, 1, 2)}


class Listener:
    def __init__(self):
        self.ends, self.tables, self.notes = [], [], []

    def note(self, sentence):
        self.notes.append(sentence)

    def reporter(self, *_):
        return Silent()

    def ended(self, run, row):
        self.ends.append((run, row.status))

    def known(self, rows):
        self.tables.append(list(rows))


def sweep(**settings):
    configs = declare.configs({"clients": 20, "rounds": 2} | settings, AXES)
    return {declare.run_name(config, AXES): config for config in configs}


@pytest.fixture
def trained(monkeypatch):
    """Groups that were asked for; `fail` takes names of folders and raises, or gives a result."""
    groups = []

    def train_together(configs, outs, *_):
        groups.append([out.name for out in outs])
        found = [train_together.fail(out.name, configs) for out in outs]
        return [
            # A summary has a part that is called like a setting.
            bad or Result({"rounds_done": config.schedule.rounds, "data": {"clients": 20}}, out)
            for bad, config, out in zip(found, configs, outs, strict=True)
        ]

    train_together.fail = lambda *_: None
    train_together.groups = groups
    monkeypatch.setattr(scheduler, "train_together", train_together)
    return train_together


def test_runs_that_share_a_program_train_together(tmp_path, trained):
    told = Listener()
    rows = scheduler.execute(Grid(sweep()), tmp_path, told, most=2)
    assert list(rows) == list(sweep())
    # Of three seeds two and one: groups are as equal as can be.
    assert sorted(map(len, trained.groups)) == [1, 1, 2, 2]
    assert all(len({name.split(",")[0] for name in group}) == 1 for group in trained.groups)
    assert sorted(name for group in trained.groups for name in group) == sorted(sweep())
    assert dict(told.ends) == dict.fromkeys(sweep(), FINISHED)
    assert rows["variant=mlp,seed=1"].content["data"] == {"clients": 20}
    assert rows["variant=mlp,seed=1"].settings["variant"] == "mlp"
    assert told.tables[-1] == list(sweep())


def test_populations_of_other_preferences_train_together_each_on_its_own(tmp_path, monkeypatch):
    axes = {"preference_concentration": (0.1, 10.0), "seed": (0, 1)}
    configs = declare.configs({"clients": 20, "rounds": 2}, axes)
    given = []

    def train_together(_, outs, __, datasets, ___):
        given.append(dict(zip((out.name for out in outs), datasets, strict=True)))
        return [Result({"rounds_done": 2}, out) for out in outs]

    monkeypatch.setattr(scheduler, "train_together", train_together)
    runs = {declare.run_name(config, axes): config for config in configs}
    scheduler.execute(Grid(runs), tmp_path, Listener(), most=4)
    (group,) = given
    for name, config in runs.items():
        assert group[name].fingerprint() == data.load(config).fingerprint(), name
    assert len(set(map(id, group.values()))) == 2


@pytest.mark.parametrize(("fitting", "sizes"), [(1, [1] * 6), (2, [1, 1, 2, 2]), (9, [3, 3])])
def test_what_fits_decides_where_nobody_else_does(tmp_path, trained, monkeypatch, fitting, sizes):
    monkeypatch.setattr(scheduler.fit, "runs_together", lambda _: fitting)
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    assert sorted(map(len, trained.groups)) == sizes


def test_what_is_done_is_not_done_again(tmp_path, trained):
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    before = len(trained.groups)
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    assert len(trained.groups) == before
    # More rounds go on from where it ended.
    rows = scheduler.execute(Grid(sweep(rounds=5)), tmp_path, Listener())
    assert len(trained.groups) == 2 * before
    assert {row.content["rounds_done"] for row in rows.values()} == {5}


def test_an_interrupted_group_goes_on_in_its_program(tmp_path, trained):
    class Killed(BaseException):
        pass

    def add_two_and_die(*_):
        if len(Ledger(tmp_path).rows()) == 2:
            raise Killed

    told = Listener()
    told.ended = add_two_and_die
    with pytest.raises(Killed):
        scheduler.execute(Grid(sweep()), tmp_path, told, most=3)
    scheduler.execute(Grid(sweep()), tmp_path, Listener(), most=2)
    assert trained.groups[0] == trained.groups[1]
    assert len(trained.groups) == 3


def test_fewer_runs_may_be_asked_for_after_an_interruption(tmp_path, trained):
    Ledger(tmp_path).add_groups([[f"variant=mlp,seed={seed}" for seed in range(3)]])
    fewer = {name: config for name, config in sweep().items() if "seed=2" not in name}
    assert list(scheduler.execute(Grid(fewer), tmp_path, Listener(), most=3)) == list(fewer)
    assert sorted(name for group in trained.groups for name in group) == sorted(fewer)


def test_a_run_that_fails_leaves_the_others_alone(tmp_path, trained):
    def fail(name, _):
        return DivergedError("round 1: not finite") if name == "variant=mlp,seed=1" else None

    trained.fail = fail
    rows = scheduler.execute(Grid(sweep()), tmp_path, Listener())
    bad = rows.pop("variant=mlp,seed=1")
    assert bad.status == FAILED
    assert bad.content["reason"] == "round 1: not finite"
    assert {row.status for row in rows.values()} == {FINISHED}
    # It stays so until it is asked for.
    before = len(trained.groups)
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    assert len(trained.groups) == before
    trained.fail = lambda *_: None
    again = scheduler.execute(Grid(sweep()), tmp_path, Listener(), retry_failed=True)
    assert {row.status for row in again.values()} == {FINISHED}


def test_retrying_ends(tmp_path, trained):
    trained.fail = lambda *_: DivergedError("always")
    for retry in (False, True):
        rows = scheduler.execute(Grid(sweep()), tmp_path, Listener(), retry_failed=retry)
        assert {row.status for row in rows.values()} == {FAILED}


@pytest.mark.parametrize("reason", [UserError("out of device memory"), MemoryError()])
def test_what_does_not_fit_together_is_done_alone(tmp_path, trained, reason):
    def fail(name, configs):
        if len(configs) > 1 or name == "variant=mlp,seed=2":
            raise reason

    trained.fail = fail
    rows = scheduler.execute(Grid(sweep()), tmp_path, Listener())
    assert [name for name, row in rows.items() if row.status == FAILED] == ["variant=mlp,seed=2"]
    assert rows["variant=mlp,seed=2"].content["reason"] == (str(reason) or "MemoryError")
    assert [len(group) for group in Ledger(tmp_path).groups()] == [1] * 6


def test_two_at_once_do_every_run_once(tmp_path, trained):
    meeting = threading.Barrier(2, timeout=60)
    trained.fail = lambda *_: meeting.wait() and None  # each waits for the other one's group

    def work():
        scheduler.execute(Grid(sweep()), tmp_path, Listener(), most=3)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for group in trained.groups for name in group) == sorted(sweep())
    assert len(Ledger(tmp_path).rows()) == 6


@pytest.mark.usefixtures("trained")
def test_another_sweeps_folder_is_refused(tmp_path):
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    with pytest.raises(UserError, match=r"holds another sweep, whose run .* has --dim=64, now 32"):
        scheduler.execute(Grid(sweep(dim=32)), tmp_path, Listener())
    with pytest.raises(UserError, match="--rounds=2, now 1"):
        scheduler.execute(Grid(sweep(rounds=1)), tmp_path, Listener())
    scheduler.execute(Grid(sweep(chunk=3)), tmp_path, Listener())


JAX = {
    "version": "0.10.2",
    "platform": "cpu",
    "device_kind": "cpu",
    "jax_threefry_partitionable": True,
}


def with_jax(jax):
    """Runs whose summaries say what JAX they are of."""
    real = scheduler.train_together

    def train_together(*args):
        return [Result(found.summary | {"jax": jax}, found.out) for found in real(*args)]

    return train_together


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (JAX, None),
        (JAX | {"version": "0.10.9"}, None),
        (JAX | {"version": "0.11.0"}, "began with jax 0.10, goes on with 0.11"),
        (JAX | {"platform": "gpu"}, "began with platform cpu, goes on with gpu"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_a_sweep_tells_of_another_jax(tmp_path, monkeypatch, now, words):
    monkeypatch.setattr(scheduler.environment, "in_force", lambda: JAX)
    monkeypatch.setattr(scheduler, "train_together", with_jax(JAX))
    scheduler.execute(Grid(sweep()), tmp_path, Listener())
    monkeypatch.setattr(scheduler.environment, "in_force", lambda: now)
    finished, longer = Listener(), Listener()
    scheduler.execute(Grid(sweep()), tmp_path, finished)
    assert finished.notes == []  # nothing is left to do
    scheduler.execute(Grid(sweep(rounds=3)), tmp_path, longer)
    assert [words in note for note in longer.notes] == ([True] if words else [])


@pytest.mark.usefixtures("trained")
def test_a_sweep_with_other_draws_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler.environment, "in_force", lambda: JAX)
    monkeypatch.setattr(scheduler, "train_together", with_jax(JAX))
    runs = sweep()
    scheduler.execute(Grid(dict(list(runs.items())[:2])), tmp_path, Listener())
    other = JAX | {"jax_threefry_partitionable": False}
    monkeypatch.setattr(scheduler.environment, "in_force", lambda: other)
    with pytest.raises(UserError, match="jax_threefry_partitionable was True and is now False"):
        scheduler.execute(Grid(runs), tmp_path, Listener())


def test_a_full_disk_ends_a_sweep_and_is_no_failure_of_a_run(tmp_path, trained):
    full = UnwritableError("no space")

    def fail(*_):
        raise full

    trained.fail = fail
    with pytest.raises(UnwritableError):
        scheduler.execute(Grid(sweep()), tmp_path, Listener(), most=2)
    assert Ledger(tmp_path).rows() == {}
    trained.fail = lambda *_: None
    rows = scheduler.execute(Grid(sweep()), tmp_path, Listener(), most=2)
    assert {row.status for row in rows.values()} == {FINISHED}


@pytest.mark.usefixtures("trained")
def test_a_folder_without_locks_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fedvlr_jax.files.has_locks", lambda _: False)
    told = Listener()
    scheduler.execute(Grid(sweep()), tmp_path, told)
    assert ["no locks: do not start a second process" in note for note in told.notes] == [True]


@pytest.mark.parametrize("settings", ["{}", '{"rounds": "2"}', '{"rounds": null}', '{"rounds": 2}'])
@pytest.mark.usefixtures("trained")
def test_a_row_with_other_settings_is_refused(tmp_path, settings):
    runs = sweep()
    Ledger(tmp_path).add(next(iter(runs)), Row(FINISHED, json.loads(settings), {}))
    with pytest.raises(UserError, match=r"has no rounds|holds another sweep"):
        scheduler.execute(Grid(runs), tmp_path, Listener())
