import time

import pytest

from benchmarks import stepping


class Sleeper(stepping.Contender):
    """Takes a known time for every client."""

    def __init__(self, per_client, serial):
        self.per_client, self.serial = per_client, serial
        self.calls = []

    def compile(self):
        time.sleep(0.03)

    def prepare(self, number):
        assert number == len(self.calls), "every round has its own negatives"
        time.sleep(0.02)

    def round(self, clients):
        self.calls.append(clients)
        time.sleep(self.per_client * clients)
        return 0.5


def test_rounds_are_timed_without_what_comes_before_them():
    found = stepping.measure(Sleeper(1e-3, serial=False), clients=10, seconds=0.05)
    assert found.clients_timed == found.clients == 10
    assert 2 <= len(found.round_seconds) <= 5
    assert 500 < found.updates_per_second() <= 1000
    assert 0.03 <= found.compile_seconds < 0.2
    assert found.peak_bytes > 10**6


def test_a_slow_loop_over_clients_is_timed_on_a_part_of_them():
    sleeper = Sleeper(1e-4, serial=True)
    found = stepping.measure(sleeper, clients=100_000, seconds=0.1)
    assert found.clients == 100_000
    assert 50 <= found.clients_timed <= 1000
    assert found.updates_per_second() == pytest.approx(1e4, rel=0.5)
