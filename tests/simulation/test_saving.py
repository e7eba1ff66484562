"""Which rounds get on disk, by stand-ins for a run and its checkpoints."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedvlr_jax.simulation import callbacks
from fedvlr_jax.simulation.callbacks import Save
from fedvlr_jax.simulation.checkpoint import Checkpoints, Done, Progress


class Disk(Checkpoints):
    """Notes what is written."""

    def __init__(self):
        self.rounds = []

    def save(self, state, progress):
        self.rounds.append(state)
        assert state == f"copy of {progress.round}"


class States:
    """A run's states as far as they are saved."""

    fits_twice = True
    diverged = -1

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
def run(disk):
    """A run that has not been evaluated, as far as callbacks look at it."""
    return SimpleNamespace(
        states=States(),
        checkpoints=disk,
        config=SimpleNamespace(execution=SimpleNamespace(checkpoint_seconds=10.0)),
        progress=Progress(),
        since=[],
        goes_on=True,
        seconds=1.0,
    )


@pytest.fixture
def save(run):
    found = Save()
    found.begin(run)
    return found


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(callbacks.time, "monotonic", lambda: Clock.now)
    return Clock


def evaluate(save, run, number, best, last=False):
    run.states.now, run.goes_on, run.since = number, not last, []
    run.progress = Progress(round=number, best_round=best)
    save.evaluated(run)


def pause(save, run, *rounds):
    run.since = list(rounds)
    save.stopped(run)


def test_the_best_and_the_last_at_the_end(save, run, disk):
    for number, best in ((5, 5), (10, 10), (15, 10)):
        evaluate(save, run, number, best)
    assert disk.rounds == []
    evaluate(save, run, 20, 10, last=True)
    assert disk.rounds == ["copy of 10", 20]


def test_a_last_round_that_is_best_is_written_once(save, run, disk):
    evaluate(save, run, 5, 5)
    evaluate(save, run, 10, 10, last=True)
    assert disk.rounds == [10]


def test_when_the_time_has_come(save, run, disk, clock):
    evaluate(save, run, 5, 5)
    clock.now += 10
    evaluate(save, run, 10, 5)
    assert disk.rounds == ["copy of 5", 10]
    clock.now += 9
    evaluate(save, run, 15, 5)
    assert len(disk.rounds) == 2
    clock.now += 2
    evaluate(save, run, 20, 5)  # the best is on disk already
    assert disk.rounds == ["copy of 5", 10, 20]


def test_large_states_are_written_every_time(save, run, disk):
    run.states.fits_twice = False
    evaluate(save, run, 5, 5)
    evaluate(save, run, 10, 5)
    assert disk.rounds == [5, 10]


def test_a_pause_writes_what_is_newer_than_on_disk(save, run, disk):
    pause(save, run)
    assert disk.rounds == []
    pause(save, run, ROUND)
    assert disk.rounds == [1]
    evaluate(save, run, 5, 5)
    pause(save, run)
    assert disk.rounds == [1, 5]
    evaluate(save, run, 10, 10)
    pause(save, run, ROUND, ROUND)
    assert disk.rounds == [1, 5, "copy of 10", 12]


def test_of_what_has_diverged_the_best_is_rescued(save, run, disk):
    evaluate(save, run, 5, 5)
    evaluate(save, run, 10, 5)
    run.states.diverged = 11
    pause(save, run, ROUND)
    save.diverged(run)
    assert disk.rounds == ["copy of 5"]
