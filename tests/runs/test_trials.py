"""What is tried, by whom and how often; training itself is a stand-in here."""

import errno
import os
import sqlite3
import threading

import pandas as pd
import pytest

from fedvlr_jax.config import Config
from fedvlr_jax.errors import DivergedError, UnwritableError, UserError
from fedvlr_jax.report import search_page
from fedvlr_jax.reporter import Silent
from fedvlr_jax.runs import scheduler, space, trials
from fedvlr_jax.runs.ledger import Ledger
from fedvlr_jax.runs.space import Search
from fedvlr_jax.runs.trials import COMPLETE, FAILED, PRUNED, Searching
from tests.runs.standin import ROUNDS, KilledError, Training

LINES = ("server_lr=log:1e-4:1e-1", "dim=8,16")


class Listener:
    def __init__(self, planner=None):
        self.numbers, self.tables, self.notes, self.planner = [], [], [], planner

    def note(self, sentence):
        self.notes.append(sentence)

    def reporter(self, run, _):
        number = self.planner and self.planner.number_of(run)
        if number not in self.numbers[-1:]:
            self.numbers.append(number)
        return Silent()

    def ended(self, run, row): ...

    def known(self, rows):
        self.tables.append(len(rows))


def execute(search, out, told, number):
    """All trials after the search has been done."""
    told.planner = Searching(search, number)
    return told.planner.trials(scheduler.execute(told.planner, out, told))


def search(lines=LINES, seeds=(0,), search_seed=0, **settings):
    settings = {"clients": 20, "items": 20, "rounds": ROUNDS, "eval_every": 1} | settings
    return Search({"client_solver": "sgd"} | settings, space.read(lines), seeds, search_seed)


@pytest.fixture
def trained(monkeypatch):
    """Puts a stand-in in the place of training, and gives it back."""

    def put(**how):
        training = Training(**how)
        monkeypatch.setattr(scheduler, "train_together", training)
        return training

    return put


def table(trials, searched=None):
    return search_page.results(trials, (searched or search()).space)


def test_a_search_finds_what_is_best(tmp_path, trained):
    training, told = trained(), Listener()
    found = execute(search(), tmp_path, told, 25)
    assert told.numbers == list(range(25))
    assert told.tables == [*range(1, 26), 25]
    states = [trial.outcome.state for trial in found]
    assert set(states) == {COMPLETE, PRUNED}
    # Nobody is pruned before five are complete, and nobody is trained on once pruned.
    assert states[:5] == [COMPLETE] * 5
    assert training.rounds < 25 * ROUNDS
    best = table(found).sort_values("value").iloc[-1]
    assert best["dim"] == 16
    assert 0.004 < best["server_lr"] < 0.025
    assert best["best_round"] == ROUNDS
    assert best["seconds"] == ROUNDS
    late, early = table(found)["value"][15:].mean(), table(found)["value"][:10].mean()
    assert late > early
    # The same again does nothing, a larger number goes on.
    before = len(training.begun)
    assert table(execute(search(), tmp_path, Listener(), 25)).equals(table(found))
    assert len(training.begun) == before
    more = execute(search(), tmp_path, Listener(), 27)
    assert len(more) == 27
    assert table(more)[:25].equals(table(found))


def test_what_is_pruned_says_why_and_what_it_came_to(tmp_path, trained):
    trained()
    found = execute(search(), tmp_path, Listener(), 12)
    pruned = [trial for trial in found if trial.outcome.state == PRUNED]
    for trial in pruned:
        number = trial.outcome.best_round
        assert trial.outcome.reason == f"after round {number} below the median of the trials so far"
        assert trial.outcome.seconds == number
        assert trial.outcome.value is not None


def test_nothing_is_pruned_before_its_time(tmp_path, trained):
    training = trained()
    patient = Search(search().settings, search().space, (0,), 0, prune_from=ROUNDS)
    found = execute(patient, tmp_path, Listener(), 12)
    assert {trial.outcome.state for trial in found} == {COMPLETE}
    assert training.rounds == 12 * ROUNDS


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "train_together", Training())
        return table(execute(search(), tmp_path_factory.mktemp("calm"), Listener(), 12))


@pytest.mark.parametrize("when", ["heard", "unheard"])
@pytest.mark.parametrize("die", [1, 18, 22])
def test_an_interrupted_search_ends_the_same(tmp_path, trained, calm, die, when):
    trained(die=(die, when))
    with pytest.raises(KilledError):
        execute(search(), tmp_path, Listener(), 12)
    training = trained()
    found = execute(search(), tmp_path, Listener(), 12)
    pd.testing.assert_frame_equal(table(found), calm)
    # It goes on from what was done.
    assert die + training.rounds == calm["seconds"].sum()


@pytest.mark.parametrize("number", [3, 10])
def test_a_kill_while_parameters_are_suggested_changes_nothing(
    tmp_path, trained, calm, monkeypatch, number
):
    trained()
    add = Ledger.add_trial

    def dying(ledger, params):
        if len(ledger.trials()) == number:
            raise KilledError
        add(ledger, params)

    monkeypatch.setattr(Ledger, "add_trial", dying)
    with pytest.raises(KilledError):
        execute(search(), tmp_path, Listener(), 12)
    monkeypatch.setattr(Ledger, "add_trial", add)
    pd.testing.assert_frame_equal(table(execute(search(), tmp_path, Listener(), 12)), calm)


@pytest.mark.parametrize("number", [0, 8])
def test_a_kill_before_the_outcome_is_written_changes_nothing(
    tmp_path, trained, calm, monkeypatch, number
):
    trained()
    add = Ledger.add

    def dying(ledger, run, row):
        if len(ledger.rows()) == number:
            raise KilledError
        add(ledger, run, row)

    monkeypatch.setattr(Ledger, "add", dying)
    with pytest.raises(KilledError):
        execute(search(), tmp_path, Listener(), 12)
    monkeypatch.setattr(Ledger, "add", add)
    pd.testing.assert_frame_equal(table(execute(search(), tmp_path, Listener(), 12)), calm)


def test_the_search_seed_decides_what_is_tried(tmp_path, trained, calm):
    trained()
    other = execute(search(search_seed=1), tmp_path, Listener(), 12)
    assert not set(table(other)["server_lr"]) & set(calm["server_lr"])


def test_two_at_once_share_the_trials(tmp_path, trained):
    meeting = threading.Barrier(2, timeout=60)
    training = trained(wait=meeting.wait)  # each waits for the other one's trial
    told = Listener(), Listener()

    def work(mine):
        execute(search(), tmp_path, mine, 8)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told[0].numbers + told[1].numbers) == list(range(8))
    assert len(told[0].numbers) == len(told[1].numbers) == 4
    assert len(set(training.begun)) == 8


def test_what_another_one_was_killed_at_is_gone_on_with(tmp_path, trained):
    trained(die=(2, "heard"))
    with pytest.raises(KilledError):
        execute(search(), tmp_path, Listener(), 2)
    told = Listener()
    trained()
    # As many trials as there are: the killed one comes first, and is the only one left.
    assert len(execute(search(), tmp_path, told, 1)) == 1
    assert told.numbers == [0]


@pytest.mark.parametrize(
    "reason", [DivergedError("round 1: not finite"), UserError("too large"), MemoryError()]
)
def test_what_fails_is_recorded_and_the_search_goes_on(tmp_path, trained, reason):
    trained(fail=lambda config: reason if config.method.server_lr > 0.01 else None)
    found = execute(search(), tmp_path, Listener(), 10)
    assert len(found) == 10
    for trial in found:
        failed = trial.params["server_lr"] > 0.01
        assert (trial.outcome.state == FAILED) == failed
        if failed:
            assert trial.outcome.reason == (str(reason) or "MemoryError")
            assert trial.outcome.value is None
    assert {trial.outcome.state for trial in found} > {FAILED}


def test_settings_that_contradict_each_other_fail(tmp_path, trained):
    trained()
    odd = Search(
        {"items": 20, "client_solver": "sgd"},
        space.read(["cohort=lin:1:40", "clients=20,40"]),
        (0,),
    )
    found = execute(odd, tmp_path, Listener(), 9)
    failed = [trial for trial in found if trial.outcome.state == FAILED]
    assert failed
    for trial in failed:
        assert trial.params["cohort"] > trial.params["clients"]
        assert "expected at most the" in trial.outcome.reason


def test_the_score_is_the_mean_over_seeds(tmp_path, trained):
    training = trained()
    told = Listener()
    found = execute(search(seeds=(0, 1, 2)), tmp_path, told, 10)
    alone = execute(search(), tmp_path / "alone", Listener(), 1)
    assert found[0].outcome.value == pytest.approx(alone[0].outcome.value + 1)
    assert found[0].outcome.seconds == 3 * ROUNDS
    assert found[0].params == alone[0].params
    # What is pruned is so with its first seed.
    for trial in found:
        runs = [run.name for run in told.planner.folders(trial.params)]
        done = [run in training.begun for run in runs]
        assert done == ([True] * 3 if trial.outcome.state == COMPLETE else [True, False, False])


def test_equal_parameters_are_trained_once(tmp_path, trained):
    training = trained()
    found = execute(search(["dim=8,16"]), tmp_path, Listener(), 5)
    assert training.rounds == 2 * ROUNDS
    assert {trial.outcome.state for trial in found} == {COMPLETE}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"lines": ("server_lr=log:1e-4:1", "dim=8,16")},
            "--search=server_lr was log:0.0001:0.1, now log:0.0001:1",
        ),
        ({"lines": LINES[:1]}, "--dim was None, now 64"),
        ({"local_epochs": 2}, "--local_epochs was 5, now 2"),
        ({"rounds": 9}, "--rounds was 4, now 9"),
        ({"seeds": (0, 1)}, r"--seeds was \[0\], now \[0, 1\]"),
        ({"search_seed": 1}, "--search_seed was 0, now 1"),
    ],
)
def test_another_searchs_folder_is_refused(tmp_path, trained, changed, words):
    trained()
    execute(search(), tmp_path, Listener(), 1)
    with pytest.raises(UserError, match=f"holds another search .*{words}.*expected the same"):
        execute(search(**changed), tmp_path, Listener(), 2)
    assert len(execute(search(chunk=3), tmp_path, Listener(), 2)) == 2


def test_changed_data_are_another_search(tmp_path, trained, monkeypatch):
    trained()
    execute(search(), tmp_path, Listener(), 1)
    load = trials.DatasetCache.load
    other = Config.of(clients=20, items=20, data_seed=7)
    monkeypatch.setattr(trials.DatasetCache, "load", lambda kept, _: load(kept, other))
    with pytest.raises(UserError, match="the data's fingerprint was"):
        execute(search(), tmp_path, Listener(), 2)


def test_folders_that_cannot_be_used(tmp_path, trained):
    trained()
    Ledger(tmp_path, "sweep")
    with pytest.raises(UserError, match="holds a sweep"):
        execute(search(), tmp_path, Listener(), 1)
    older = tmp_path / "older"
    older.mkdir()
    (older / "study.sqlite").touch()
    with pytest.raises(UserError, match=r"holds study\.sqlite, a search of an older version"):
        execute(search(), older, Listener(), 1)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "runs.sqlite").write_text("no database " * 100)
    with pytest.raises(UserError, match="cannot be used"):
        execute(search(), damaged, Listener(), 1)
    with pytest.raises(UserError, match="is a file, expected a folder"):
        execute(search(), tmp_path / "runs.sqlite", Listener(), 1)


def test_a_cohort_that_no_population_has_is_refused_at_once(tmp_path):
    data = search(cohort=20).first()
    assert data.method.cohort == 20
    with pytest.raises(UserError, match="--cohort=21: expected at most the 20 clients"):
        execute(search(cohort=21), tmp_path / "new", Listener(), 1)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_ends_a_search_and_is_no_failure_of_a_trial(tmp_path, trained):
    trained(fail=lambda _: UnwritableError("no space"))
    with pytest.raises(UnwritableError):
        execute(search(), tmp_path, Listener(), 3)
    trained()
    found = execute(search(), tmp_path, Listener(), 3)
    assert [trial.outcome.state for trial in found] == [COMPLETE] * 3


def edit(folder, *statements):
    """Let somebody else's hand change what is known of a search."""
    with sqlite3.connect(folder / "runs.sqlite") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


PARAMS = "UPDATE trials SET params = '{}'"
STATEMENTS = [
    PARAMS.format("{"),
    PARAMS.format("[]"),
    PARAMS.format("3"),
    PARAMS.format('{"server_lr": 0.01}'),
    PARAMS.format('{"server_lr": 0.01, "dim": 8, "more": 1}'),
    PARAMS.format('{"server_lr": "two", "dim": 8}'),
    PARAMS.format('{"server_lr": 7.0, "dim": 8}'),
    PARAMS.format('{"server_lr": 0.01, "dim": 9}'),
    PARAMS.format('{"server_lr": [1], "dim": 8}'),
    PARAMS.format("[" * 20_000),
    "UPDATE trials SET params = 7",
    "UPDATE trials SET number = 5",
    "UPDATE attempts SET status = 'nothing'",
    "UPDATE attempts SET content = '{}', status = 'pruned'",
    "UPDATE attempts SET content = '{\"valid\": 3}'",
    "UPDATE facts SET value = 7",
    "ALTER TABLE trials RENAME COLUMN number TO no",
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=range(len(STATEMENTS)))
def test_an_edited_search_is_refused_in_a_sentence(tmp_path, trained, statement):
    trained()
    execute(search(), tmp_path, Listener(), 1)
    edit(tmp_path, statement)
    with pytest.raises(UserError, match=r"runs\.sqlite[:,]") as refusal:
        execute(search(), tmp_path, Listener(), 1)
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", ["3", "[]", '"x"', '{"--dim": 1}', "null"])
def test_a_search_of_something_else_is_refused(tmp_path, trained, value):
    trained()
    execute(search(), tmp_path, Listener(), 1)
    edit(tmp_path, f"UPDATE facts SET value = '{{\"value\": {value}}}' WHERE name = 'search'")
    with pytest.raises(UserError, match="holds another search"):
        execute(search(), tmp_path, Listener(), 2)


def test_a_search_tells_of_another_jax(tmp_path, trained, monkeypatch):
    now = {
        "version": "0.10.2",
        "platform": "cpu",
        "device_kind": "cpu",
        "jax_threefry_partitionable": True,
    }
    trained(jax=now)
    number = iter(range(1, 9))

    def notes(**changed):
        monkeypatch.setattr(scheduler.environment, "in_force", lambda: now | changed)
        told = Listener()
        execute(search(), tmp_path, told, next(number))
        return told.notes

    assert notes() == []
    assert notes(version="0.10.3") == []
    (note,) = notes(version="0.11.0")
    assert "began with jax 0.10, goes on with 0.11" in note
    with pytest.raises(UserError, match="jax_threefry_partitionable was True and is now False"):
        notes(jax_threefry_partitionable=False)


def test_a_search_works_where_there_are_no_locks(tmp_path, trained, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    trained()
    monkeypatch.setattr("fcntl.flock", refuse)
    told = Listener()
    found = execute(search(), tmp_path, told, 1)
    (note,) = told.notes
    assert "no locks: do not start a second process" in note
    assert [t.outcome.state for t in execute(search(), tmp_path, Listener(), 1)] == [COMPLETE]
    assert table(execute(search(), tmp_path, Listener(), 1)).equals(table(found))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("x" * 999)])
def test_what_is_no_ledger(tmp_path, make):
    make(tmp_path / "runs.sqlite")
    with pytest.raises(UserError, match=r"runs\.sqlite: (is a (pipe|folder)|cannot be used)"):
        execute(search(), tmp_path, Listener(), 1)
