"""Profiles of devices: drawn ones, and tables of the user's own."""

import numpy as np
import pytest

from fedvlr_jax.data import devices
from fedvlr_jax.errors import UserError


def test_phones_have_the_spreads_that_are_told():
    found = devices.load("phones", 20_000)
    for name, median, deviation in (
        ("gflops", 2.0, 0.9),
        ("down_mbps", 20.0, 1.1),
        ("up_mbps", 5.0, 1.1),
    ):
        logs = np.log(getattr(found, name))
        assert logs.mean() == pytest.approx(np.log(median), abs=0.03)
        assert logs.std() == pytest.approx(deviation, abs=0.02)
    assert ((found.opens >= 0) & (found.opens < 24)).all()
    assert ((found.hours >= 0.5) & (found.hours <= 24)).all()
    assert np.median(found.hours) == pytest.approx(9, abs=0.2)
    # Hours around midnight: on a circle their mean is 22 o'clock.
    angle = np.angle(np.exp(2j * np.pi * found.opens / 24).mean()) * 24 / 2 / np.pi
    assert angle % 24 == pytest.approx(22, abs=0.1)


def test_few_clients_have_the_devices_of_the_first_of_many():
    few, many = devices.load("phones", 7), devices.load("phones", 5000)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:7])


def test_uniform_devices_are_the_median_phone_all_day():
    found = devices.load("uniform", 3)
    assert [set(x.tolist()) for x in found] == [{2.0}, {20.0}, {5.0}, {0.0}, {24.0}, {0.0}]


def test_a_table_is_read_in_order_and_may_have_more_rows(tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text("up_mbps,gflops,down_mbps,hours,model\n1,2,3,4,a\n5,6,7,24,b\n8,9,10,1,c\n")
    found = devices.load(str(path), 2)
    assert found.gflops.tolist() == [2, 6]
    assert found.down_mbps.tolist() == [3, 7]
    assert found.up_mbps.tolist() == [1, 5]
    assert found.hours.tolist() == [4, 24]
    assert found.opens.tolist() == found.spread.tolist() == [0, 0]
    assert devices.identity(str(path)) != devices.identity(__file__)
    assert devices.identity("phones") == {}


HEAD = "gflops,down_mbps,up_mbps"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}\n1,1,1\n1,-2,1\n", "line 3: down_mbps is '-2', expected a number above 0"),
        (f"{HEAD}\n1,1,1\nnan,2,1\n", "line 3: gflops is 'nan', a marker of a missing value"),
        (f"{HEAD}\n1,1,1\nfast,2,1\n", "line 3: gflops is 'fast', expected a number above 0"),
        (f"{HEAD}\n1,1,1\n1,2,inf\n", "line 3: up_mbps is 'inf', expected a number above 0"),
        ("gflops,down_mbps\n1,1\n1,1\n", "line 1: no column up_mbps, found 'gflops, down_mbps'"),
        (f"{HEAD}\n1,1,1\n", "has 1 rows, expected one for each of the 2 clients"),
        (f"{HEAD},opens\n1,1,1,24\n1,1,1,0\n", "line 2: opens is '24', expected an hour from"),
        (f"{HEAD},hours\n1,1,1,0\n1,1,1,0\n", "line 2: hours is '0', expected a number of hours"),
        (f"{HEAD},spread\n1,1,1,-1\n1,1,1,0\n", "line 2: spread is '-1', expected a number from 0"),
        ("", "the file is empty"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(text, said, tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text(text)
    with pytest.raises(UserError) as found:
        devices.load(str(path), 2)
    assert said in str(found.value)
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)
