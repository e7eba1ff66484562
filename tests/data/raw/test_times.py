"""Times keep their order whatever they are spelled like, or are refused."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data.raw.times import Clock, day_first, hardly_times, is_time, units_apart


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=2))
def test_whole_numbers_keep_their_order_as_text(numbers):
    clock = Clock()
    times = [clock.read(str(number) if k % 2 else number) for k, number in enumerate(numbers)]
    assert np.argsort(times, kind="stable").tolist() == np.argsort(numbers, kind="stable").tolist()


@given(st.integers(0, 1_999_999_999), st.text("0123456789", min_size=1, max_size=14))
def test_a_fraction_is_kept_or_refused(seconds, digits):
    """Of one column, two times that differ in the last digit are never one."""
    first, second = f"{seconds}.{digits}5", f"{seconds}.{digits}6"
    try:
        times = Clock().read(first), Clock().read(second)
    except ValueError:
        times = (0, 1)
        assert len(digits) > 4
    assert times[0] < times[1]


@given(st.floats(allow_nan=False, min_value=-1e15, max_value=1e15))
def test_what_a_program_prints_of_a_float_is_kept(number):
    assert Clock().read(repr(number)) == number
    assert Clock().read(f"{number:.17g}".replace("e+", "e")) == number


@given(st.datetimes(datetime(1970, 5, 1), datetime(2200, 1, 1)))
def test_microseconds_keep_their_order(moment):
    clock = Clock()
    later = moment + timedelta(microseconds=1)
    assert clock.read(moment.isoformat()) < clock.read(later.isoformat(sep=" "))


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-01 00:00:00.123456789",
        "2020-01-01T00:00:00.123456784",
        "2020-01-01 00:00:00.1234567",
        "2020-01-01 00:00:00.0000001",
        "2020-01-01 00:00:00,000000001",
        "2020-01-01T00:00:00.123456789Z",
        "2020-01-01 00:00:00.123456789+00:00",
        "2020-01-01 00:00:00.123456789-05:30",
        "20200101T000000.123456789",
        "2020-01-01T00:00:00.123456000001",
        " 2020-01-01 00:00:00.123456789 ",
    ],
)
def test_digits_beyond_microseconds_are_refused(text):
    with pytest.raises(ValueError, match="at most six digits after the second"):
        Clock().read(text)


def test_zeros_beyond_microseconds_are_read():
    """As pandas writes a column of nanoseconds."""
    expected = datetime(2020, 1, 1, 0, 0, 0, 123456, UTC).timestamp()
    assert Clock().read("2020-01-01 00:00:00.123456000") == expected


@pytest.mark.parametrize(
    "text", ["1.6E+12", "1.60000E+12", "1,6E+12", "1.23457e+09", "2E+9", "1.6e+15", "-1.6E+12"]
)
def test_times_that_a_spreadsheet_has_cut_are_refused(text):
    with pytest.raises(ValueError, match="expected a number"):
        Clock().read(text)


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", "NaN", "nat", "NULL", r"\N", "<NA>", "None", "N/A"),
        *("0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00"),
    ],
)
def test_missing_times(value):
    clock = Clock()
    assert math.isnan(clock.read(value))
    assert clock.read("5") == 5.0
    assert math.isnan(clock.read(value))


@pytest.mark.parametrize("value", [True, [], {}, "soon", "12:30", "2020-13-01", "1e400", "inf", ""])
def test_what_is_no_time(value):
    if value != "":
        with pytest.raises(ValueError, match="expected"):
            Clock().read(value)
    assert not isinstance(value, str) or not is_time(value)


@given(
    st.lists(st.floats(1e9, 2e9), min_size=1, max_size=20),
    st.lists(st.floats(1e9, 2e9), min_size=1, max_size=20),
    st.sampled_from([10**3, 10**6]),
    st.randoms(),
)
def test_units_that_are_mixed_are_found(small, large, factor, random):
    times = [*small, *(time * factor for time in large), 0.0, -1.0]
    random.shuffle(times)
    low, high, found = units_apart(np.array(times))
    assert found == factor
    assert times[low] == next(time for time in times if 1e7 < time < 3e9)
    assert times[high] == next(time for time in times if time > 3e9)


@given(st.lists(st.floats(1e8, 9e9), max_size=20), st.sampled_from([1, 10**3, 10**6]))
def test_one_unit_is_one_unit(times, factor):
    assert units_apart(np.array([*times, 0.0, 5.0]) * factor) is None


@pytest.mark.parametrize(
    "text",
    [
        *("1_600_000_000", "1_6", "1600000000_0", "1_0.5", "1e1_0", "\u0661\u0662", "\uff11\uff16"),
        *("\u0967\u096c", "16\uff10", "1\u0660.5", "0x10", "0b1", "True", "1,600", "1600000000,5"),
    ],
)
@pytest.mark.parametrize("before", [(), ("1600000000",)])
def test_what_only_python_reads_as_a_number_is_no_time(text, before):
    clock = Clock()
    for time in before:
        clock.read(time)
    with pytest.raises(ValueError, match="expected a number or a date"):
        clock.read(text)


@given(
    st.lists(st.dates(date(1970, 1, 1), date(2100, 12, 31)), min_size=2, unique=True),
    st.sampled_from(["%d%m%Y", "%m%d%Y"]),
)
def test_numbers_that_are_dates_with_the_year_last(dates, form):
    assert day_first(np.array([float(day.strftime(form)) for day in dates]))
    assert not day_first(np.array([float(day.strftime("%Y%m%d")) for day in dates]))


@given(st.integers(1, 10**8), st.integers(150, 10_000))
def test_counters_are_no_dates(first, count):
    assert not day_first(np.arange(first, first + count, dtype=np.float64))


@given(
    st.lists(st.floats(1e9, 2e9), min_size=7, max_size=20),
    st.lists(st.sampled_from([0.0, -5.0, 44197.5, 20210131.0, -62135596800.0]), max_size=3),
    st.lists(st.sampled_from([2.0**31 - 1, 2.0**32, 99999999999.0, 253402214400.0]), max_size=3),
    st.randoms(),
)
def test_times_long_before_or_after_most(ours, early, late, random):
    times = [*ours, *early, *late]
    random.shuffle(times)
    found = hardly_times(np.array(times))
    assert [[times[k] for k in odd] for odd in found] == [
        [time for time in times if time in some] for some in (early, late)
    ]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6])
def test_times_of_our_days_are_none_of_those(unit):
    for odd in hardly_times(np.array([1.1e9, 1.2e9, 1.7e9]) * unit):
        assert not len(odd)
