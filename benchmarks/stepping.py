"""Time a contender that trains one round when it is told to."""

import dataclasses
import gc
import statistics
import time
from dataclasses import dataclass
from typing import Protocol

import jax
from jaxtyping import Array, Int

from benchmarks.workload import Negatives, World
from fedvlr_jax.simulation import memory

CHECKED_ROUNDS = 2
_MOST_ROUNDS = 20
_PROBED_CLIENTS = 50


@dataclass(frozen=True)
class Measurement:
    """What was measured of one contender at one number of clients.

    Attributes:
        clients: number of clients.
        clients_timed: clients that a timed round trained, fewer where the whole cohort takes too
            long.
        seconds: of every timed round, of the clients that were timed.
        losses: the cohort's mean training loss of the first rounds, where all clients trained.
        compile_seconds: of what is done once before the first round.
        peak_bytes: largest resident memory from then on.
    """

    clients: int
    clients_timed: int
    seconds: list[float]
    losses: list[float]
    compile_seconds: float
    peak_bytes: int

    @property
    def updates_per_second(self) -> float:
        """Client updates a second, the median over rounds."""
        return self.clients_timed / statistics.median(self.seconds)


class Contender(Protocol):
    """A way to train all clients of the workload, one round after the other."""

    serial: bool  # whether clients train one after the other, so that a part of them can be timed

    def compile(self) -> None:
        """Do what is done once."""

    def hand_over(self, negatives: Int[Array, "epochs clients drawn"]) -> None:
        """Take the next round's negatives; not timed."""

    def round(self, clients: int) -> float:
        """Train the first `clients` clients, step the server; the cohort's mean training loss."""


def measure(contender: Contender, world: World, seconds: float) -> Measurement:
    """Time rounds for about `seconds`: one at least after the warm-up, 20 at most.

    Where a round of all clients would take longer than that and clients train one after the
    other, as many of them are timed as fit; the server's step then counts a little too much, by
    less than its share of `seconds`.
    """
    gc.collect()
    memory.reset_peak()
    negatives = Negatives(world)
    begun = time.perf_counter()
    contender.compile()
    compile_seconds = time.perf_counter() - begun
    rounds = 0

    def one(clients: int) -> tuple[float, float]:
        nonlocal rounds
        contender.hand_over(negatives.of(rounds))
        begun = time.perf_counter()
        loss = contender.round(clients)
        rounds += 1
        return time.perf_counter() - begun, loss

    clients = world.n_clients
    if contender.serial and clients > _PROBED_CLIENTS:
        one(_PROBED_CLIENTS)
        spent, _ = one(_PROBED_CLIENTS)
        clients = min(clients, max(_PROBED_CLIENTS, int(_PROBED_CLIENTS * seconds / spent)))
        probed = True
    else:
        probed = False
    warm = [] if clients < world.n_clients else [one(clients)]
    timed: list[tuple[float, float]] = []
    while len(timed) < _MOST_ROUNDS and (
        not timed or len(warm) + len(timed) < CHECKED_ROUNDS or sum(s for s, _ in timed) < seconds
    ):
        timed.append(one(clients))
    losses = [loss for _, loss in (warm + timed)[:CHECKED_ROUNDS]]
    return Measurement(
        clients=world.n_clients,
        clients_timed=clients,
        seconds=[spent for spent, _ in timed],
        losses=[] if probed else losses,
        compile_seconds=compile_seconds,
        peak_bytes=memory.peak_bytes(),
    )


def as_json(measurement: Measurement) -> dict:
    """A measurement as JSON takes it."""
    return dataclasses.asdict(measurement)


