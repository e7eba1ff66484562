"""When what takes long is drawn again."""

import pytest

from experiments import scheduling
from experiments.scheduling import Seldom


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [1000.0]
    monkeypatch.setattr(scheduling.time, "monotonic", lambda: now[0])
    return now


def test_it_is_due_at_first_and_then_after_its_seconds(clock):
    seldom = Seldom(60.0)
    assert seldom.is_due(whole=False)
    clock[0] += 60.0
    assert not seldom.is_due(whole=False)
    clock[0] += 0.5
    assert seldom.is_due(whole=False)
    assert not seldom.is_due(whole=False)


def test_it_is_due_at_the_end_whenever_that_is(clock):
    seldom = Seldom(60.0)
    assert seldom.is_due(whole=False)
    assert seldom.is_due(whole=True)
    assert seldom.is_due(whole=True)
    clock[0] += 59.0  # since the end, which counts
    assert not seldom.is_due(whole=False)
