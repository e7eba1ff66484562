import contextlib
import errno
import os
import sqlite3

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.search import space
from fedvlr_jax.search.space import Search
from fedvlr_jax.search.store import Store
from fedvlr_jax.search.trials import COMPLETE, RUNNING, Outcome
from fedvlr_jax.simulation import environment

SEARCH = Search({"clients": 20, "items": 20}, space.read(["server_lr=log:1e-4:1e-1"]), (0,))


@pytest.fixture
def two(tmp_path):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Store(tmp_path, SEARCH, "x"))) for _ in "ab"]


def test_a_trial_is_one_process_s_until_it_ends(two):
    mine, other = two
    with mine.claimed_trial(2) as first:
        with other.claimed_trial(2) as second:
            assert (first.number, second.number) == (0, 1)
            with other.claimed_trial(2) as third:
                assert third is None
            other.end(second, Outcome(COMPLETE, 5.0, 2, 1.5))
        assert other.is_waited_for()
        assert [trial.outcome.state for trial in other.trials()] == [RUNNING, COMPLETE]
    assert other.trials()[1].outcome == Outcome(COMPLETE, 5.0, 2, 1.5)
    # Nobody has the first one any more: it was killed, and is gone on with.
    with other.claimed_trial(2) as again:
        assert again.number == 0
        assert other.params(again) == mine.params(first)
        other.end(again, Outcome(COMPLETE, 6.0))
    assert not mine.is_waited_for()
    assert [trial.outcome.value for trial in mine.trials()] == [6.0, 5.0]


def test_a_trial_that_ends_while_others_look_is_not_done_again(two, monkeypatch):
    mine, other = two
    with mine.claimed_trial(1) as trial:

        @contextlib.contextmanager
        def claimed(_):
            mine.end(trial, Outcome(COMPLETE, 5.0))
            yield True

        monkeypatch.setattr(other, "claimed", claimed)
        with other.claimed_trial(1) as nothing:
            assert nothing is None


def test_what_was_reported_is_not_reported_again(two):
    mine, other = two
    with mine.claimed_trial(1) as trial:
        assert mine.why_to_prune(trial, 1, 3.0) is None
    with other.claimed_trial(1) as trial:
        assert other.why_to_prune(trial, 1, 3.0) is None  # Optuna would warn
        assert other.why_to_prune(trial, 2, 4.0) is None
    with mine.claimed_trial(1) as trial:
        assert mine.why_to_prune(trial, 2, 4.0) is None


def test_no_number_is_known_of_what_has_just_begun(two):
    mine, other = two
    with mine.claimed_trial(1):
        (found,) = other.trials()
    assert found.outcome == Outcome(RUNNING)
    assert 1e-4 <= found.params["server_lr"] <= 1e-1


def edit(folder, *statements):
    """Let somebody else's hand change the study."""
    with sqlite3.connect(folder / "study.sqlite") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


OUTCOME = "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'outcome'"
STATEMENTS = [
    OUTCOME.format("{"),
    OUTCOME.format("[]"),
    OUTCOME.format("3"),
    OUTCOME.format('{"more": 1}'),
    OUTCOME.format('{"best_round": "two"}'),
    OUTCOME.format('{"seconds": [1]}'),
    OUTCOME.format('{"reason": 7}'),
    OUTCOME.format("[" * 20_000),
    "UPDATE trials SET state = 'WAITING'",
    "UPDATE trials SET state = 'nothing'",
    "DELETE FROM trial_values",
    "UPDATE trial_params SET distribution_json = '{'",
    "DROP TABLE trial_values",
    "ALTER TABLE trials RENAME COLUMN number TO no",
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=range(len(STATEMENTS)))
def test_an_edited_study_is_refused_in_a_sentence(tmp_path, statement):
    with contextlib.closing(Store(tmp_path, SEARCH, "x")) as store:
        with store.claimed_trial(1) as trial:
            store.end(trial, Outcome(COMPLETE, 5.0, 2, 1.5))
        assert len(store.trials()) == 1
    edit(tmp_path, statement)
    with pytest.raises(UserError, match=r"study\.sqlite: (has content|cannot be used)") as refusal:  # noqa: SIM117
        with contextlib.closing(Store(tmp_path, SEARCH, "x")) as store:
            store.trials()
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", ["3", "[]", "null", '"x"', '{"--dim": 1}'])
def test_a_study_of_something_else_is_refused(tmp_path, value):
    Store(tmp_path, SEARCH, "x").close()
    edit(tmp_path, f"UPDATE study_user_attributes SET value_json = '{value}' WHERE key = 'search'")
    if value == "null":  # as if nobody had said yet which search it is
        Store(tmp_path, SEARCH, "x").close()
        return
    with pytest.raises(UserError, match="holds another search"):
        Store(tmp_path, SEARCH, "x")


def test_a_search_writes_down_what_jax_it_is_of(tmp_path, monkeypatch):
    now = {
        "version": "0.10.2",
        "platform": "cpu",
        "device_kind": "cpu",
        "jax_threefry_partitionable": True,
    }

    def notes(**changed):
        monkeypatch.setattr(environment, "in_force", lambda: now | changed)
        with contextlib.closing(Store(tmp_path, SEARCH, "x")) as store:
            return store.notes

    assert notes() == []
    assert notes(version="0.10.3") == []
    (note,) = notes(version="0.11.0")
    assert "began with jax 0.10, goes on with 0.11" in note
    with pytest.raises(UserError, match="jax_threefry_partitionable was True and is now False"):
        notes(jax_threefry_partitionable=False)
    edit(tmp_path, "DELETE FROM study_user_attributes WHERE key = 'jax'")
    (note,) = notes()
    assert "began with an older version of this package" in note


def test_a_search_works_where_there_are_no_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with contextlib.closing(Store(tmp_path, SEARCH, "x")) as store:
        (note,) = store.notes
        assert "no locks: do not start a second process" in note
        with store.claimed_trial(1) as trial:
            store.end(trial, Outcome(COMPLETE, 5.0, 2, 1.5))
    with contextlib.closing(Store(tmp_path, SEARCH, "x")) as store:
        assert [found.outcome.value for found in store.trials()] == [5.0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("x" * 999)])
def test_what_is_no_study(tmp_path, make):
    make(tmp_path / "study.sqlite")
    with pytest.raises(UserError, match=r"study\.sqlite: (is a (pipe|folder)|cannot be used)"):
        Store(tmp_path, SEARCH, "x")
