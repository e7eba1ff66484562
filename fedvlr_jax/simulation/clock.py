"""The virtual clock: how long clients take, for whom the server waits, and when a round ends.

How long a client takes in a round is a pure function of (seed, round, client): what it downloads,
computes and uploads, by its device (data/devices.py), times a factor drawn anew in every round. All
times are whole milliseconds, so they add up, compare and end rounds alike on all devices. Nothing
here depends on what clients learn, and every vector has all clients and lies on every device.

The server is synchronous here: it asks clients, waits for as many uploads as it wants or until its
deadline (Bonawitz et al. 2019, arXiv 1902.01046), and takes a step. buffered.py has another one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from fedvlr_jax.data.devices import Devices
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.sampling import smallest

DAY = 24 * 3600 * 1000
LONGEST = 20 * DAY  # that anything takes; two of them still fit into 32 bits
_NEVER = np.iinfo(np.int32).max


class Times(NamedTuple):
    """What the clock knows of clients, by id.

    `seconds` are those that a round takes, by the kind of rounds (`Federation.kind`) and on
    average but for `spread`, the standard deviation of the logarithm of a round's own factor. A
    client can be asked from the millisecond `opens` of every day on, for `open_for` of them.
    `deadline` is the server's, in milliseconds after it has asked, `LONGEST` where it has none.
    `staleness` is the power of buffered.py.
    """

    seconds: dict[str, Float[Array, " clients"]]
    spread: Float[Array, " clients"]
    opens: Int[Array, " clients"]
    open_for: Int[Array, " clients"]
    deadline: Int[Array, ""]
    staleness: Float[Array, ""]


@dataclass(frozen=True)
class Rules:
    """How the server waits for clients. Static under jit.

    Attributes:
        asked: clients that are asked in a round, 0 for all; with a buffer those that train at a
            time.
        wanted: uploads that end a round, 0 for those of all that were asked.
        late: whether uploads that come after the end are added to those of the next round; else
            they are dropped.
        buffer: uploads that the server takes a step after, whoever still trains; 0 for rounds.
        versions: of what the server has sent that it still takes uploads for, with a buffer.
    """

    asked: int
    wanted: int
    late: bool = False
    buffer: int = 0
    versions: int = 1


class Clock(NamedTuple):
    """The time that has passed: whole days, and milliseconds of the day."""

    days: Int[Array, ""]
    milliseconds: Int[Array, ""]

    def after(self, milliseconds: Int[Array, ""]) -> "Clock":
        """After so many milliseconds more, at most `LONGEST`."""
        total = self.milliseconds + milliseconds
        return Clock(self.days + total // DAY, total % DAY)


class Attendance(NamedTuple):
    """Who takes part in a round, by client id.

    `trains` are those whose uploads count, `late` those of them whose upload comes after the round.
    """

    trains: Bool[Array, " clients"]
    late: Bool[Array, " clients"]


def begin() -> Clock:
    """Midnight, before the first round."""
    return Clock(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def windows(devices: Devices) -> tuple[Int[np.ndarray, " clients"], Int[np.ndarray, " clients"]]:
    """When devices are available: `Times.opens` and `Times.open_for`."""
    hour = DAY // 24
    hours = devices.opens, devices.hours
    return tuple(np.rint(x.astype(np.float64) * hour).astype(np.int32) for x in hours)


def durations(
    times: Times, kind: str, key: keys.Words, number: Int[Array, ""]
) -> Int[Array, " clients"]:
    """Milliseconds that every client would take in round `number`, of that kind."""
    drawn = jax.random.normal(keys.for_round(key, keys.CLOCK, number), times.spread.shape)
    seconds = times.seconds[kind] * jnp.exp(times.spread * drawn)
    return jnp.ceil(1000 * seconds).clip(1, LONGEST).astype(jnp.int32)


def until_open(times: Times, clock: Clock) -> Int[Array, " clients"]:
    """Milliseconds until every client can be asked, 0 for those that can be now."""
    since = (clock.milliseconds - times.opens) % DAY
    return jnp.where(since < times.open_for, 0, DAY - since)


def synchronous(
    rules: Rules,
    took: Int[Array, " clients"],
    asked: Bool[Array, " clients"],
    stays: Bool[Array, " clients"],
    deadline: Int[Array, ""],
) -> tuple[Attendance, Int[Array, ""]]:
    """Who is in time, and after how many milliseconds the round ends.

    A round ends with the last upload that the server wants, or at its deadline. Without a deadline
    it knows who does not come; with one it waits for them.

    Args:
        rules: of the server.
        took: milliseconds from the question to the upload.
        asked: who was asked.
        stays: who of them has not dropped out.
        deadline: see `Times`.
    """
    comes = asked & stays
    there = comes.sum()
    wanted = jnp.int32(rules.wanted) if rules.wanted else asked.sum()
    last = nth(took, comes, jnp.minimum(wanted, there))
    missing = (there < wanted) & (deadline < LONGEST)
    end = jnp.where(missing, deadline, jnp.minimum(last, deadline))
    in_time = comes & (took <= end)
    if rules.late:
        return Attendance(comes, comes & ~in_time), end
    return Attendance(in_time, jnp.zeros_like(in_time)), end


def nth(
    took: Int[Array, " clients"], among: Bool[Array, " clients"], number: Int[Array, ""]
) -> Int[Array, ""]:
    """The `number`-th smallest of some times, 0 for the number 0."""
    bits: UInt32[Array, " clients"] = jnp.where(among, took, _NEVER).astype(jnp.uint32)
    return jnp.where(number > 0, smallest(bits, number), 0).astype(jnp.int32)
