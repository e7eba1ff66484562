"""Which rounds get on disk, by stand-ins for a run and its checkpoints."""

import numpy as np
import pytest

from fedvlr_jax.simulation import saving
from fedvlr_jax.simulation.checkpoint import Checkpoints, Done, Progress
from fedvlr_jax.simulation.saving import Saver


class Disk(Checkpoints):
    """Notes what is written."""

    def __init__(self):
        self.rounds = []

    def save(self, state, progress):
        self.rounds.append(state)
        assert state == f"copy of {progress.round}"


class Training:
    """A run as far as it is saved."""

    fits_twice = True
    diverged = -1
    # Not asked for.
    state = private_bytes = 0
    ranks = rankings = resume = go_back = close = print

    def __init__(self):
        self.now = 0

    def copy(self):
        return f"copy of {self.now}"

    def save(self, checkpoints, progress):
        checkpoints.rounds.append(progress.round)


ROUND = Done(0.1, 0.5, np.array([0, 3]), 0, 3)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def run():
    return Training()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(saving.time, "monotonic", lambda: Clock.now)
    return Clock


def evaluate(saver, run, number, best, last=False):
    run.now = number
    saver.evaluated(Progress(round=number, best_round=best), last)


def test_the_best_and_the_last_at_the_end(run, disk):
    saver = Saver(run, disk, 10.0)
    for number, best in ((5, 5), (10, 10), (15, 10)):
        evaluate(saver, run, number, best)
    assert disk.rounds == []
    evaluate(saver, run, 20, 10, last=True)
    assert disk.rounds == ["copy of 10", 20]


def test_a_last_round_that_is_best_is_written_once(run, disk):
    saver = Saver(run, disk, 10.0)
    evaluate(saver, run, 5, 5)
    evaluate(saver, run, 10, 10, last=True)
    assert disk.rounds == [10]


def test_when_the_time_has_come(run, disk, clock):
    saver = Saver(run, disk, 10.0)
    evaluate(saver, run, 5, 5)
    clock.now += 10
    evaluate(saver, run, 10, 5)
    assert disk.rounds == ["copy of 5", 10]
    clock.now += 9
    evaluate(saver, run, 15, 5)
    assert len(disk.rounds) == 2
    clock.now += 2
    evaluate(saver, run, 20, 5)  # the best is on disk already
    assert disk.rounds == ["copy of 5", 10, 20]


def test_large_states_are_written_every_time(run, disk):
    run.fits_twice = False
    saver = Saver(run, disk, 10.0)
    evaluate(saver, run, 5, 5)
    evaluate(saver, run, 10, 5)
    assert disk.rounds == [5, 10]


def test_a_pause_writes_what_is_newer_than_on_disk(run, disk):
    saver = Saver(run, disk, 10.0)
    saver.pause(Progress(), [], 1.0)
    assert disk.rounds == []
    saver.pause(Progress(), [ROUND], 1.0)
    assert disk.rounds == [1]
    evaluate(saver, run, 5, 5)
    saver.pause(Progress(round=5, best_round=5), [], 1.0)
    assert disk.rounds == [1, 5]
    evaluate(saver, run, 10, 10)
    saver.pause(Progress(round=10, best_round=10), [ROUND, ROUND], 1.0)
    assert disk.rounds == [1, 5, "copy of 10", 12]


def test_of_what_has_diverged_the_best_is_rescued(run, disk):
    saver = Saver(run, disk, 10.0)
    evaluate(saver, run, 5, 5)
    evaluate(saver, run, 10, 5)
    run.diverged = 11
    saver.pause(Progress(round=10, best_round=5), [ROUND], 1.0)
    saver.rescue()
    assert disk.rounds == ["copy of 5"]
