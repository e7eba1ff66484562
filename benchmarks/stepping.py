"""Time a contender that trains one round when it is told to."""

import abc
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedvlr_jax.simulation import memory

CHECKED_ROUNDS = 2
_MOST_ROUNDS = 20
_PROBED_CLIENTS = 50


class Contender(abc.ABC):
    """A way to train all clients of the workload, one round after the other."""

    # Whether clients train one after the other, so that a part of them can be timed.
    serial = False

    @abc.abstractmethod
    def compile(self) -> None:
        """Do what is done once."""

    @abc.abstractmethod
    def prepare(self, number: int) -> None:
        """Get ready for round `number`, counted from 0: take its negatives. Not timed."""

    @abc.abstractmethod
    def round(self, clients: int) -> float:
        """Train the first `clients` clients, step the server; the cohort's mean training loss."""

    def peak_bytes(self) -> int:
        """Largest resident memory since the measurement began."""
        return memory.peak_bytes()


@dataclass(frozen=True)
class Measurement:
    """What was measured of one contender at one number of clients.

    Attributes:
        clients: number of clients.
        clients_timed: clients that a timed round trained, fewer where the whole cohort takes too
            long.
        round_seconds: of every timed round.
        compile_seconds: of what is done once before the first round.
        peak_bytes: largest resident memory from then on.
    """

    clients: int
    clients_timed: int
    round_seconds: list[float]
    compile_seconds: float
    peak_bytes: int

    def updates_per_second(self, of: Callable[[list[float]], float] = statistics.median) -> float:
        """Client updates a second in the median round; `of` picks another, `min` the fastest."""
        return self.clients_timed / of(self.round_seconds)


def first_losses(contender: Contender, clients: int) -> list[float]:
    """The cohort's mean training loss of the first rounds."""
    contender.compile()
    return [_timed_round(contender, number, clients)[1] for number in range(CHECKED_ROUNDS)]


def measure(contender: Contender, clients: int, seconds: float) -> Measurement:
    """Time rounds for about `seconds` after a warm-up: one at least, 20 at most.

    Where a round of all clients would take longer than that and clients train one after the
    other, as many of them are timed as fit; the server's step then counts a little too much, by
    less than its share of `seconds`.
    """
    gc.collect()
    memory.reset_peak()
    begun = time.perf_counter()
    contender.compile()
    compile_seconds = time.perf_counter() - begun
    timed = clients
    if contender.serial and clients > _PROBED_CLIENTS:
        _timed_round(contender, 0, _PROBED_CLIENTS)
        spent, _ = _timed_round(contender, 1, _PROBED_CLIENTS)
        timed = min(clients, max(_PROBED_CLIENTS, int(_PROBED_CLIENTS * seconds / spent)))
        done = 2
    else:
        _timed_round(contender, 0, clients)
        done = 1
    rounds: list[float] = []
    while not rounds or (len(rounds) < _MOST_ROUNDS and sum(rounds) < seconds):
        rounds.append(_timed_round(contender, done + len(rounds), timed)[0])
    return Measurement(clients, timed, rounds, compile_seconds, contender.peak_bytes())


def median_seconds(call: Callable[[], Any], seconds: float, most: int) -> float:
    """Median wall seconds of a call, of calls for about `seconds` after one that is not timed.

    Args:
        call: returns when everything is done.
        seconds: for all calls; there is one at least.
        most: calls that are timed.
    """
    call()
    spent: list[float] = []
    while not spent or (len(spent) < most and sum(spent) < seconds):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def _timed_round(contender: Contender, number: int, clients: int) -> tuple[float, float]:
    """Wall seconds and loss of one round."""
    contender.prepare(number)
    begun = time.perf_counter()
    loss = contender.round(clients)
    return time.perf_counter() - begun, loss
