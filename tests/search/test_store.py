import contextlib

import pytest

from fedvlr_jax.search import space
from fedvlr_jax.search.space import Search
from fedvlr_jax.search.store import Store
from fedvlr_jax.search.trials import COMPLETE, RUNNING, Outcome

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
