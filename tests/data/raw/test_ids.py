"""Ids: what is one, what is missing, and when 7.0 is 7."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data.raw.ids import MISSING, Codes, as_whole_numbers, spelled
from fedvlr_jax.data.raw.log import LogBuilder
from fedvlr_jax.errors import UserError


@given(st.lists(st.tuples(st.integers(-20, 20), st.sampled_from(["", ".0", ".00", "."]))))
def test_whole_numbers_are_one_id_however_they_are_spelled(events):
    builder = LogBuilder()
    for k, (number, end) in enumerate(events):
        builder.add(f"{number}{end}", "i", k)
    if not events:
        with pytest.raises(UserError, match="no interaction"):
            builder.log()
        return
    log = builder.log()
    assert [log.users[code] for code in log.user] == [str(number) for number, _ in events]
    assert len(set(log.users)) == len(log.users)
    respelled = sum(bool(end) for _, end in events)
    notes = [note for note in builder.notes if "with a decimal point" in note]
    assert len(notes) == bool(respelled)
    assert not respelled or f"in {respelled} of {len(events)} rows" in notes[0]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["7", "8"], None),
        (["7.0", "8.0"], ["7", "8"]),
        (["7", "7.0"], ["7", "7"]),
        (["a", "7.0"], ["a", "7"]),
        (["1.0", "1.5"], None),
        (["1.0", "0.5", "2"], None),
        (["007", "7"], None),
        (["v1.0"], None),
        (["1.0.0"], None),
        (["-1.0"], ["-1"]),
        (["12E3"], None),
    ],
)
def test_which_columns_are_of_whole_numbers(ids, expected):
    assert as_whole_numbers(ids) == expected


@pytest.mark.parametrize("others", [["1.5"], ["0.25", "x"], [".5"]])
def test_versions_are_not_merged(others):
    builder = LogBuilder()
    for k, user in enumerate(["7", *others, "7.0"]):
        builder.add(user, "i", k, k + 1)
    with pytest.raises(UserError, match=rf"line {len(others) + 2}: the user is '7.0' beside '7'"):
        builder.log()


@pytest.mark.parametrize("value", [7, "7", " 7", "7 ", "\t7\n", "\u00a07"])
def test_space_and_json_numbers(value):
    codes = Codes()
    assert codes["7"] == codes[value] == 0
    assert codes.ids == ["7"]


@pytest.mark.parametrize("value", [None, "", " ", "NA", " nan ", r"\N", "<NA>", "#N/A", "NULL"])
def test_missing_ids_have_no_code(value):
    codes = Codes()
    assert codes[value] == MISSING
    assert codes.ids == []


@pytest.mark.parametrize("value", [True, [], {}, "a\rb", "\ud800", 1.5, ["x"]])
def test_what_is_no_id_is_told_with_its_line(value):
    builder = LogBuilder()
    builder.add("u", "i", 1, 1)
    with pytest.raises(UserError, match=r"line 2: the item is .*expected an id"):
        builder.add("u", value, 2, 2)


def test_a_row_that_is_left_out_takes_no_code():
    builder = LogBuilder()
    for user, item in (("new", "NA"), ("b", "y"), ("NULL", "z"), ("a", "x"), ("new", "x")):
        builder.add(user, item, 1)
    log = builder.log()
    assert log.users == ["b", "a", "new"]
    assert log.items == ["y", "x"]
    np.testing.assert_array_equal(log.user, [0, 1, 2])
    np.testing.assert_array_equal(log.item, [0, 1, 1])


def notes_of(*users):
    """What is told of a log with these users, one event each."""
    builder = LogBuilder()
    for time, user in enumerate(users):
        builder.add(user, "lamp", time)
    assert len(builder.log().users) == len(set(users))
    return builder.notes


ALIKE = [
    *(("ann", "Ann"), ("straße", "STRASSE"), ("7", "007"), ("7", "+7"), ("0", "000")),
    *(("1000", "1,000"), ("1000", "1_000"), ("1000", "1 000"), ("1234567", "1.234.567")),
    *(("ann", "'ann'"), ("ann", '"ann"'), ("Jos\u00e9", "Jose\u0301"), ("7", "\uff17")),
    *(("u7", "\uff557"), ("ann", "an\u200bn"), ("B00X", "b00x")),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_ids_that_look_alike_are_told_and_stay_apart(one, other):
    (note,) = notes_of("bob", one, "carl", other, other)
    assert note.startswith(
        f"the log, line 0: the user is {other!r} beside {one!r}; ids that differ"
    )
    assert "(1 of 4) are read as different ids" in note


@pytest.mark.parametrize(
    "users",
    [
        *(
            ("7", "70"),
            ("0", "10", "100"),
            ("u1", "u01"),
            ("a-b", "ab"),
            ("1,5", "15"),
            ("x", "xx"),
        ),
        *(
            ("12,34", "1234"),
            ("7a", "07a"),
            ("José", "Jose"),
            ("-7", "7"),
            ("B0", "B00"),
            ("1", "+"),
        ),
    ],
)
def test_ids_that_do_not_look_alike(users):
    assert notes_of(*users) == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "-",
            "?",
            "unknown",
            "Unknown",
            "MISSING",
            "anonymous",
            "nil",
            "-1",
            "guest",
            "[deleted]",
        ),
        *("'NULL'", "'None'", "`na`", "''", "'-nan'"),
    ],
)
def test_ids_that_may_stand_for_nobody_are_told(text):
    (note,) = notes_of("ann", text, "3", text)
    assert note.startswith(
        f"the log, line 0: the user is {text!r}, which may mean that it is unknown"
    )
    assert "(2 of 4) are read as one id" in note


@pytest.mark.parametrize("users", [("-1", "-2", "3"), ("unknown1", "-x"), ("deleted scenes", "a?")])
def test_ids_that_stand_for_somebody(users):
    assert notes_of(*users) == []


@pytest.mark.parametrize("end", ["\u200b", "\ufeff", "\u00a0", " \u2060", "\u200e", "\u00ad"])
def test_letters_without_width_around_an_id_go(end):
    assert spelled(f"{end}ann{end}") == "ann"
    assert spelled(f"an{end}n") == f"an{end}n"


@pytest.mark.parametrize("text", ["1" * 5000 + ".0", "x" * 20_000, "0" * 20_000])
def test_endless_ids_are_refused_in_our_words(text):
    with pytest.raises(ValueError, match=r"^expected an id") as error:
        spelled(text)
    assert "sys." not in str(error.value)
    assert spelled("0" * 5000 + "7.") == "0" * 5000 + "7."
