"""Clients' devices: how fast each computes, downloads and uploads, and when it is available.

`uniform` gives every client the median device of `phones`, always available. `phones` draws devices
from log-normal distributions. That devices differ by an order of magnitude in computation and by
more in bandwidth is what Lai et al. 2022 (FedScale, arXiv 2105.11367) show of AI Benchmark's
latencies and MobiPerf's throughputs; that most are available for some hours, many at night, is what
Yang et al. 2021 (FLASH, arXiv 2006.06983) show of 136,000 phones. The medians are round numbers of
ours. A file has measurements of the user's own, a row for each client.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from fedvlr_jax.data.table import Table, read_table
from fedvlr_jax.errors import UserError
from fedvlr_jax.files import sha256

NAMES = ("none", "uniform", "phones")
_SEED = 11  # of the population's devices, whatever the run
_NEEDED = ("gflops", "down_mbps", "up_mbps")
# Medians, and standard deviations of logarithms: 0.9 is a factor of 10 from the slowest tenth to
# the fastest, 1.1 one of 17.
_GFLOPS, _DOWN, _UP = 2.0, 20.0, 5.0
_COMPUTES, _TRANSFERS = 0.9, 1.1
_ROUNDS = 0.3  # of one device from round to round
# Available from about 22 o'clock on, for about 9 hours.
_OPENS, _OPENS_BY, _HOURS, _HOURS_BY = 22.0, 3.0, 9.0, 0.4


class Devices(NamedTuple):
    """The devices of all clients, in order.

    `gflops` are 10^9 operations a second, `down_mbps` and `up_mbps` 10^6 bits a second, all above
    0. A device is available every day from the hour `opens`, from 0 to below 24, for `hours`, above
    0 and up to 24. `spread` is the standard deviation of the logarithm of a factor that the time of
    a round has, drawn anew in every round.
    """

    gflops: Float32[np.ndarray, " clients"]
    down_mbps: Float32[np.ndarray, " clients"]
    up_mbps: Float32[np.ndarray, " clients"]
    opens: Float32[np.ndarray, " clients"]
    hours: Float32[np.ndarray, " clients"]
    spread: Float32[np.ndarray, " clients"]


def load(profile: str, n_clients: int) -> Devices:
    """The devices of a profile (`--devices_profile`), but for `none`.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a number out of its range,
            or more clients than rows.
    """
    if profile == "uniform":
        return _like([_GFLOPS, _DOWN, _UP, 0.0, 24.0, 0.0], n_clients)
    if profile == "phones":
        return _phones(n_clients)
    return _of_file(Path(profile), n_clients)


def identity(profile: str) -> dict[str, str]:
    """What tells two tables of the same path apart; nothing where the profile's name says all.

    To be called after `load`.
    """
    return {} if profile in NAMES else {"devices_fingerprint": sha256(Path(profile))}


def _like(numbers: list[float], n_clients: int) -> Devices:
    return Devices(*(np.full(n_clients, x, np.float32) for x in numbers))


def _phones(n_clients: int) -> Devices:
    """Devices drawn one client after the other, so that the first of many are those of few."""
    drawn = np.random.default_rng(_SEED).standard_normal((n_clients, 5))
    computes, down, up, opens, hours = drawn.T
    found = Devices(
        gflops=_GFLOPS * np.exp(_COMPUTES * computes),
        down_mbps=_DOWN * np.exp(_TRANSFERS * down),
        up_mbps=_UP * np.exp(_TRANSFERS * up),
        opens=(_OPENS + _OPENS_BY * opens) % 24,
        hours=np.clip(_HOURS * np.exp(_HOURS_BY * hours), 0.5, 24),
        spread=np.full(n_clients, _ROUNDS),
    )
    return Devices(*(x.astype(np.float32) for x in found))


def _of_file(path: Path, n_clients: int) -> Devices:
    if not path.is_file():
        raise UserError(
            f"--devices_profile={path}: is no file, expected {', '.join(NAMES)} or a table with "
            f"the columns {', '.join(_NEEDED)}"
        )
    try:
        table = read_table(path, ",", _NEEDED)
    except OSError as error:
        raise UserError(f"--devices_profile={path}: cannot be read ({error.strerror})") from None
    n_rows = len(table.cells)
    if n_rows < n_clients:
        raise UserError(
            f"{path}: has {n_rows} rows, expected one for each of the {n_clients} clients"
        )
    found = _like([0.0, 0.0, 0.0, 0.0, 24.0, 0.0], n_clients)
    ranges = dict.fromkeys(_NEEDED, (_SMALLEST, math.inf, "a number above 0")) | {
        "opens": (0.0, _BELOW_A_DAY, "an hour from 0 to below 24"),
        "hours": (_SMALLEST, 24.0, "a number of hours above 0 and up to 24"),
        "spread": (0.0, 10.0, "a number from 0 to 10"),
    }
    return found._replace(
        **{
            name: _numbers(table, name, *bounds)[:n_clients]
            for name, bounds in ranges.items()
            if name in table.cells
        }
    )


_SMALLEST, _BELOW_A_DAY = 1e-6, float(np.nextafter(np.float32(24), np.float32(0)))


def _numbers(
    table: Table, name: str, least: float, most: float, expected: str
) -> Float32[np.ndarray, " rows"]:
    """A column of numbers.

    Raises:
        UserError: a cell that is no number from `least` to `most`, told with its line.
    """
    values = np.array([_number(text) for text in table.cells[name]], np.float32)
    bad = ~((values >= np.float32(least)) & (values <= most) & np.isfinite(values))
    if bad.any():
        raise table.refuse_cell(int(bad.argmax()), name, expected)
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
