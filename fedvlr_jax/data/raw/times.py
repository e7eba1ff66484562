"""Read times: numbers or dates, all of one kind and one unit, none of them rounded."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from fedvlr_jax.data.text import is_missing

_LARGEST = 2.0**53  # whole numbers from here on would be rounded, and times reordered
_DIGITS = 15  # that every float keeps
_NUMBER = "a number"
_NO_DATE = re.compile(r"0000-00-00([T ]00:00(:00(\.0*)?)?)?")  # how MySQL writes no date
# Cut to so many digits by a spreadsheet or by a program that prints floats.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]*)?[eE]\+[0-9]+")
_BEYOND_MICROSECONDS = re.compile(r"[.,][0-9]{6}([0-9]+)")
_EXPECTED = "expected a number or a date like 2026-01-31 12:00:00"
# In seconds since 1970, or a finer unit: before April 1970, and from 1973 on.
_HARDLY_A_TIME = 1e7
_SURELY_A_TIME = 1e8
_YEAR_2100 = 4_102_444_800.0  # in seconds since 1970
_LAST_INT32 = 2.0**31 - 1  # seconds, which programs write for never
_UNITS_APART = 100.0


class Clock:
    """Reads one column of times, all of them of the first one's kind.

    A number stays as it is; an ISO 8601 date becomes seconds since 1970, in UTC where it names no
    zone. A column of several kinds would put interactions into a wrong order.
    """

    def __init__(self) -> None:
        self._kind = ""

    @property
    def is_number(self) -> bool:
        """Whether the times read so far are numbers, whose unit is not known."""
        return self._kind == _NUMBER

    def read(self, value: Any) -> float:
        """One time; NaN where it is missing.

        Raises:
            ValueError: it is no time, of another kind, or would be rounded; the message says what
                was expected.
        """
        if self._kind is _NUMBER and value.__class__ is str and len(value) <= _DIGITS:
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if abs(number) < _LARGEST and "+" not in value and _is_spelled(value):
                return number
        return self._read(value)

    def _read(self, value: Any) -> float:
        if value is None or (isinstance(value, str) and is_missing(value)):
            return math.nan
        if isinstance(value, str) and _NO_DATE.fullmatch(value.strip()):
            return math.nan
        kind, time = _parsed(value)
        self._kind = self._kind or kind
        if kind != self._kind:
            raise ValueError(f"{kind}, expected {self._kind} as in the lines above")
        return time


def is_time(text: str) -> bool:
    """Whether a cell holds a time, as a name of a column does not."""
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


def _parsed(value: Any) -> tuple[str, float]:
    try:
        odd = isinstance(value, bool) or (isinstance(value, str) and not _is_spelled(value.strip()))
        number = math.nan if odd else float(value)
    except OverflowError:
        number = math.inf
    except (ValueError, TypeError):
        number = math.nan
    if not math.isnan(number):
        if not abs(number) < _LARGEST:
            raise ValueError("expected a number below 2^53")
        if isinstance(value, str) and not _kept(value.strip(), number):
            raise ValueError("expected a number that a float holds with all of its digits")
        return _NUMBER, number
    if not isinstance(value, str):
        raise ValueError(_EXPECTED)
    text = value.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    beyond = _BEYOND_MICROSECONDS.search(text)
    if beyond and beyond[1].strip("0"):
        raise ValueError("expected a date with at most six digits after the second (microseconds)")
    if moment.tzinfo:
        return "a date with a time zone", moment.timestamp()
    return "a date without a time zone", moment.replace(tzinfo=UTC).timestamp()


def _is_spelled(text: str) -> bool:
    """Whether what Python reads as a number is one elsewhere: not 1_000, nor Arabic digits."""
    return text.isascii() and "_" not in text


def _kept(text: str, number: float) -> bool:
    """Whether `number` still has every digit of `text`, so that no two times become equal."""
    cut = _SCIENTIFIC.fullmatch(text)
    if len(text) <= _DIGITS and not cut:
        return True
    try:
        with localcontext(prec=2000):
            exact = Decimal(text)
            place = exact.as_tuple().exponent
            if cut:
                return place <= 0
            return round(Decimal(number), -place) == exact
    except InvalidOperation:
        return False


def units_apart(times: Float64[np.ndarray, " events"]) -> tuple[int, int, int] | None:
    """Where a column of numbers changes its unit: seconds beside milliseconds, for one.

    Returns:
        The first event of the smaller times, the first of the larger ones, and about how many
        times larger they are; None where all may be of one unit.
    """
    ascending = np.sort(times[times >= _HARDLY_A_TIME])
    gaps = np.flatnonzero(ascending[1:] >= _UNITS_APART * ascending[:-1])
    if not len(gaps):
        return None
    cut = gaps[0] + 1
    low, high = ascending[:cut], ascending[cut:]
    small = (times >= _HARDLY_A_TIME) & (times < high[0])
    factor = 10 ** round(math.log10(np.median(high) / np.median(low)))
    return int(small.argmax()), int((times >= high[0]).argmax()), factor


def hardly_times(
    times: Float64[np.ndarray, " events"],
) -> tuple[Int64[np.ndarray, " early"], Int64[np.ndarray, " late"]]:
    """Positions of events whose time is far from most times, if most are recent.

    The early ones are before 1973. The late ones, where most are seconds before the year 2100, are
    after it, or the largest number of 32 bits.
    """
    ours = times >= _SURELY_A_TIME
    late = ours & ((times >= _YEAR_2100) | (times == _LAST_INT32))
    most = len(times) / 2
    return (
        np.flatnonzero(~ours & (ours.sum() > most)),
        np.flatnonzero(late & ((ours & ~late).sum() > most)),
    )


def day_first(times: Float64[np.ndarray, " events"]) -> bool:
    """Whether all numbers are dates like 31012026 or 1312026, whose order is not that of time."""
    first, rest = np.divmod(times, 1e6)
    second, year = np.divmod(rest, 1e4)
    dates = (np.minimum(first, second) >= 1) & (np.minimum(first, second) <= 12)
    dates &= (np.maximum(first, second) <= 31) & (year >= 1900) & (year <= 2100) & (year % 1 == 0)
    return bool(dates.all()) and len(np.unique(times)) > 1
