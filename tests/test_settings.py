import inspect
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedvlr_jax
from fedvlr_jax import data, settings
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError, naming_flags
from fedvlr_jax.prepare import PrepareConfig, prepare
from fedvlr_jax.report import compare_page
from fedvlr_jax.reporter import Silent
from fedvlr_jax.runs import declare

WHOLE = [
    50,
    50.0,
    np.int64(50),
    np.uint8(50),
    np.float32(50),
    np.arange(51)[50],
    np.array(50),
    np.linspace(10, 50, 5)[4],
    jnp.int32(50),
    jnp.array(50.0),
    pd.Series([50, None])[0],
    pd.Series([50], dtype="Int64")[0],
    Decimal(50),
    Fraction(100, 2),
]
COUNT = "a whole number from 1 to 2147483647"
RATE = "a finite number of at least 0"
NUMBERS = [
    0.03,
    np.float64(0.03),
    np.float32(0.03),
    np.array(0.03),
    np.array(0.03, np.float32),
    np.arange(0.0, 0.05, 0.01)[3],
    jnp.float32(0.03),
    pd.Series([0.03])[0],
    Decimal("0.03"),
    Fraction(3, 100),
]


@pytest.mark.parametrize("value", WHOLE, ids=lambda v: type(v).__name__)
def test_whole_numbers_of_other_libraries(value):
    assert Config.of(clients=value).data.clients == 50
    assert type(Config.of(clients=value).data.clients) is int
    assert type(Config.of(server_lr=value).method.server_lr) is float
    assert PrepareConfig.of(source="rendered", items=value).items == 50


@pytest.mark.parametrize("value", NUMBERS, ids=lambda v: type(v).__name__)
def test_numbers_of_other_libraries(value):
    found = Config.of(server_lr=value)
    assert found.method.server_lr == pytest.approx(0.03, rel=1e-12)
    assert type(found.method.server_lr) is float
    shop = PrepareConfig.of(source="rendered", preference_concentration=value)
    assert shop.preference_concentration == pytest.approx(0.03, rel=1e-12)


@given(st.floats(2.0**-99, 2.0**99, width=32))
def test_a_float32_is_the_shortest_number_that_it_is_nearest_to(value):
    found = Config.of(server_lr=np.float32(value)).method.server_lr
    assert np.float32(found) == np.float32(value)
    assert len(f"{found!r}") <= 16


@pytest.mark.parametrize("value", [Path("data/x"), np.str_("data/x"), "data/x"])
def test_paths_and_texts_of_other_libraries(value):
    found = Config.of(data=value)
    assert found.data.data == "data/x"
    assert type(found.data.data) is str
    assert PrepareConfig.of(source="amazon", raw=value).raw == "data/x"


@pytest.mark.parametrize(
    "value",
    [
        ["sum", "mlp"],
        ("sum", "mlp"),
        np.array(["sum", "mlp"]),
        pd.Index(["sum", "mlp"]),
        "sum,mlp",
        "sum, mlp",
        " sum ,mlp ",
    ],
)
def test_lists_of_names_of_other_libraries(value):
    assert Config.of(views=value).method.views == ("sum", "mlp")
    assert Config.of(views=value).flat()["views"] == "sum,mlp"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"clients": "200"}, f"clients='200': expected {COUNT}, found a str"),
        ({"clients": True}, f"clients=True: expected {COUNT}, found a bool"),
        ({"clients": np.bool_(True)}, "clients=np.True_: expected a whole number from 1 to"),
        ({"clients": np.array([5])}, "clients=array([5]): expected a whole number from 1 to"),
        ({"clients": [5]}, f"clients=[5]: expected {COUNT}, found a list"),
        ({"clients": 2.5}, "clients=2.5: expected a whole number from 1 to 2147483647"),
        ({"clients": math.inf}, "clients=inf: expected a whole number from 1 to 2147483647"),
        ({"clients": math.nan}, "clients=nan: expected a whole number from 1 to 2147483647"),
        ({"clients": pd.NA}, "clients=<NA>: expected a whole number from 1 to 2147483647, found"),
        ({"clients": np.ma.masked}, "clients=masked: expected a whole number from 1 to"),
        ({"clients": 10**5000}, "clients=0x"),
        ({"server_lr": 1 + 2j}, f"server_lr=(1+2j): expected {RATE}, found a complex"),
        ({"server_lr": "1e-3"}, f"server_lr='1e-3': expected {RATE}, found a str"),
        ({"server_lr": np.datetime64("2020")}, f"server_lr=np.datetime64('2020'): expected {RATE}"),
        ({"rounds": None}, "rounds=None: expected a whole number"),
        ({"data": b"x"}, "data=b'x': expected a folder or 'synthetic', found a bytes"),
        ({"data": "a\udcff"}, "data=a\\udcff: expected a folder or 'synthetic', written in UTF-8"),
        (
            {"data": Path("a\ud800")},
            "data=PosixPath('a\\ud800'): expected a folder or 'synthetic', ",
        ),
        ({"data": "a\0b"}, "data=a\\x00b: expected a folder"),
        ({"variant": 5}, "variant=5: expected one of fedvlr, mlp, vbpr, id, found an int"),
        ({"variant": "x"}, "variant=x: expected one of fedvlr, mlp, vbpr, id"),
        ({"views": {"sum"}}, "views={'sum'}: expected names from sum, mlp, gate"),
        ({"views": [["sum"]]}, "views=['sum']: expected names from"),
        ({"views": [pd.NA]}, "views=<NA>: expected names from"),
        ({"views": 5}, "views=5: expected names from"),
        ({"cohort": 9, "clients": 5}, "cohort=9: expected at most the 5 clients there are"),
        ({"colour": 1}, "colour: unknown setting"),
    ],
)
def test_python_hears_what_was_found(given, sentence):
    with naming_flags(False), pytest.raises(UserError) as caught:
        Config.of(**given)
    with naming_flags(False):
        assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("~", "/home/somebody"),
        ("~/data", "/home/somebody/data"),
        (Path("~/my data"), "/home/somebody/my data"),
        (np.str_("~/x"), "/home/somebody/x"),
        ("~~/x", "~~/x"),
        ("a/~/x", "a/~/x"),
        ("./~", "./~"),
        ("~no-such-user/x", "~no-such-user/x"),
        ("synthetic", "synthetic"),
    ],
)
def test_the_home_of_a_path_is_the_users(monkeypatch, value, expected):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Config.of(data=value).data.data == expected
    prepared = PrepareConfig.of(source="amazon", raw=value, images=value, clip=value)
    assert [prepared.raw, prepared.images, prepared.clip] == [expected] * 3
    assert settings.argument("out", Path, settings.FOLDER, value) == Path(expected)


def test_a_text_that_is_no_path_has_no_home():
    found = PrepareConfig.of(source="csv", raw="x", columns="~,item,time", user_column="~")
    assert found.user_column == "~"


@pytest.mark.parametrize("zero", [-0.0, np.float32(-0.0), Decimal("-0.0"), "-0.0"])
def test_zero_has_no_sign(zero):
    read = settings.parsed if isinstance(zero, str) else settings.fitted
    assert str(read(float, settings.NOT_NEGATIVE, zero)) == "0.0"


@pytest.mark.parametrize("value", [5, "", b"x", ["x"], "x", {"rounds": 3}, "\udcff"])
def test_what_holds_no_runs_or_data_is_told(value):
    with pytest.raises(UserError, match="expected"):
        inspect.unwrap(compare_page.held)(value)
    with pytest.raises(UserError, match=r"^--config=.*: expected what Config\.of"):
        inspect.unwrap(data.load)(value)
    with pytest.raises(UserError, match=r"^--config=.*: (expected a file|cannot be read)"):
        inspect.unwrap(declare.read)(value)


@pytest.mark.parametrize("value", ["data/KU", Path("data/KU"), None, {"rounds": 3}, Config])
def test_what_is_no_configuration_is_told(value):
    train, make = map(inspect.unwrap, (fedvlr_jax.train, prepare))  # types are not checked first
    with naming_flags(False):
        with pytest.raises(UserError, match=r"^config=.*: expected what Config\.of"):
            train(value)
        with pytest.raises(UserError, match=r"expected what PrepareConfig\.of\(\.\.\.\) makes$"):
            make(value)


@pytest.mark.parametrize("value", [5, "x", b"x", [1], {}, Silent, object(), print, 0.5, False])
def test_what_is_no_reporter_or_data_set_is_told(value, tmp_path):
    train, config = inspect.unwrap(fedvlr_jax.train), Config.of(clients=20, items=60)
    with naming_flags(False):
        with pytest.raises(
            UserError, match=r"^reporter=.*: expected a fedvlr_jax.reporter.Reporter"
        ):
            train(config, tmp_path / "run", reporter=value)
        with pytest.raises(UserError, match=r"^dataset=.*: expected a data set that fedvlr_jax.da"):
            train(config, tmp_path / "run", dataset=value)
    assert not (tmp_path / "run").exists()


def test_a_configuration_is_made_by_of():
    with pytest.raises(UserError, match=r"^--config=Config\(.*: expected what Config\.of"):
        data.load(Config())
    with pytest.raises(UserError, match=r"^--config=Config\(.*: expected what Config\.of"):
        fedvlr_jax.train(Config())


@pytest.mark.parametrize("out", [5, "", b"x", ["runs"], "a\udcff", Path("\udcff/a")])
def test_what_is_no_folder_is_told(out):
    train, make = map(inspect.unwrap, (fedvlr_jax.train, prepare))
    with pytest.raises(UserError, match=r"^--out=.*: expected a folder"):
        train(Config.of(), out=out)
    with pytest.raises(UserError, match=r"^--out=.*: expected a folder"):
        make(PrepareConfig.of(source="rendered"), out=out)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1e3", 1000),
        ("50.0", 50),
        ("0123", 123),
        ("1_000", 1000),
        ("0x10", 16),
        ("0o17", 15),
        ("0B11", 3),
    ],
)
def test_whole_numbers_are_read_as_in_python(text, value):
    assert settings.parsed(int, settings.AT_LEAST_ZERO, text) == value
    assert type(settings.parsed(int, settings.AT_LEAST_ZERO, text)) is int


@pytest.mark.parametrize("text", ["x", "", "2.5", "1e99", "nan", "inf", "-1", "9" * 5000, "1:30"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(settings.UnfitError, match=r"^a whole number from 0 to 2147483647$"):
        settings.parsed(int, settings.AT_LEAST_ZERO, text)


@given(st.floats(0, allow_nan=False, allow_infinity=False))
def test_every_spelling_of_a_float_is_read(value):
    for text in (repr(value), f"{value:e}", f"{value:E}", f"+{value!r}"):
        assert settings.parsed(float, settings.NOT_NEGATIVE, text) == float(text)
