"""Filtering and splitting against a slow, obvious oracle."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data.layout import TEST, TRAIN, VALID
from fedvlr_jax.data.raw.log import LogBuilder
from fedvlr_jax.data.raw.select import GLOBAL_TIME, select
from fedvlr_jax.errors import UserError
from tests.data.raw import published


def log_of(events):
    builder = LogBuilder()
    for user, item, time in events:
        builder.add(str(user), str(item), float(time))
    return builder.log()


def oracle(events, min_user, min_item):
    """{user: items in time} after merging and dropping, one interaction at a time."""
    first = {}
    for k, (user, item, time) in enumerate(events):
        if (user, item) not in first or time < first[user, item][0]:
            first[user, item] = (time, k)
    pairs = set(first)
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        kept = {(u, i) for u, i in pairs if users[u] >= min_user and items[i] >= min_item}
        if kept == pairs:
            break
        pairs = kept
    histories = {}
    for user, item in sorted(pairs, key=first.get):
        histories.setdefault(user, []).append(item)
    return histories


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 6)), min_size=1, max_size=80
    ),
    st.integers(3, 5),
    st.integers(0, 3),
)
def test_equals_the_oracle(events, min_user, min_item):
    expected = oracle(events, min_user, min_item)
    log = log_of(events)
    if not expected:
        with pytest.raises(UserError, match=f"--min_user_interactions={min_user}"):
            select(log, min_user, min_item)
        return
    found = select(log, min_user, min_item)
    histories, splits = {}, {}
    for user, item, split in zip(found.user, found.item, found.split, strict=True):
        name = int(log.users[found.user_code[user]])
        histories.setdefault(name, []).append(int(log.items[found.item_code[item]]))
        splits.setdefault(name, []).append(int(split))
    assert histories == expected
    for split in splits.values():
        assert split == [TRAIN] * (len(split) - 2) + [VALID, TEST]
    for dense, code in ((found.user, found.user_code), (found.item, found.item_code)):
        np.testing.assert_array_equal(np.unique(dense), np.arange(len(code)))
        assert (np.diff(code) > 0).all()
    assert found.merged == len(events) - len({(u, i) for u, i, _ in events})


def test_golden_counts():
    log = log_of(published.EVENTS)
    found = select(log, 5, 0)
    assert found.merged == published.MERGED
    assert len(found.user) == published.KEPT["interactions"]
    held_out = {}
    for split in (VALID, TEST):
        for user, item in zip(
            found.user[found.split == split], found.item[found.split == split], strict=True
        ):
            name = int(log.users[found.user_code[user]])
            held_out.setdefault(name, []).append(log.items[found.item_code[item]])
    assert {user: tuple(items) for user, items in held_out.items()} == published.HELD_OUT
    both = select(log, 5, 2)
    assert len(both.user) == published.KEPT_BOTH["interactions"]
    assert len(both.item_code) == published.KEPT_BOTH["items"]


def test_of_two_at_once_the_later_line_is_later():
    found = select(log_of([(0, "a", 5), (0, "b", 5), (0, "c", 5)]), 3, 0)
    np.testing.assert_array_equal(found.item, [0, 1, 2])
    np.testing.assert_array_equal(found.split, [TRAIN, VALID, TEST])


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4)), min_size=3, max_size=40
    )
)
def test_users_whose_split_is_decided_by_ties_are_counted(events):
    first = {}
    for user, item, time in events:
        first[user, item] = min(time, first.get((user, item), time))
    expected = 0
    for user in range(4):
        times = sorted(time for (who, _), time in first.items() if who == user)
        expected += len(times) >= 3 and (times[-1] == times[-2] or times[-2] == times[-3])
    try:
        assert select(log_of(events), 3, 0).tied == expected
    except UserError:
        assert not oracle(events, 3, 0)


def held_out_by_moments(histories, times, valid, test):
    """{user: (train items, validation item, test item)}, None where there is none."""
    found = {}
    for user, items in histories.items():
        train = [i for i in items if times[user, i] < valid]
        between = [i for i in items if valid <= times[user, i] < test]
        after = [i for i in items if times[user, i] >= test]
        if train:
            found[user] = train, (between or [None])[0], (after or [None])[0]
    return found


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 9)), min_size=1, max_size=80
    ),
    st.integers(0, 3),
    st.floats(0.05, 0.45),
)
def test_global_time_equals_the_oracle(events, min_item, share):
    histories = oracle(events, 3, min_item)
    log = log_of(events)
    times = {}
    for user, item, time in events:
        times[user, item] = min(time, times.get((user, item), time))
    ordered = sorted(times[user, item] for user, items in histories.items() for item in items)
    expected = {}
    if ordered:
        places = [round(len(ordered) * (1 - k * share)) for k in (2, 1)]
        valid, test = (ordered[min(place, len(ordered) - 1)] for place in places)
        expected = held_out_by_moments(histories, times, valid, test)
    held = [[user[k] is not None for user in expected.values()] for k in (1, 2)]
    if not all(map(any, held)):
        words = "global_time: no user with a train item" if ordered else "min_user_interactions"
        with pytest.raises(UserError, match=words):
            select(log, 3, min_item, GLOBAL_TIME, share)
        return
    found = select(log, 3, min_item, GLOBAL_TIME, share)
    assert found.moments == (valid, test)
    split = {}
    for user, item, label in zip(found.user, found.item, found.split, strict=True):
        name = int(log.users[found.user_code[user]])
        train, *ends = split.get(name, ([], None, None))
        item = int(log.items[found.item_code[item]])
        if label == TRAIN:
            train.append(item)
        else:
            assert ends[label - VALID] is None
            ends[label - VALID] = item
        split[name] = (train, *ends)
    assert split == expected
    assert found.untrained == len(histories) - len(expected)
    there = sum(len(histories[user]) for user in expected)
    assert found.unused == there - len(found.user)
    for dense, code in ((found.user, found.user_code), (found.item, found.item_code)):
        np.testing.assert_array_equal(np.unique(dense), np.arange(len(code)))
    # The leak that leave-one-out has: nothing that is trained on is newer than what is held out.
    assert found.time[found.split == TRAIN].max() < found.time[found.split != TRAIN].min()


def test_leave_one_out_trains_on_what_is_newer_than_another_user_s_test_item():
    events = [(0, item, time) for time, item in enumerate("abc")]
    events += [(1, item, 10 + time) for time, item in enumerate("abc")]
    found = select(log_of(events), 3, 0)
    assert found.time[found.split == TRAIN].max() > found.time[found.split == TEST].min()


def test_times_that_are_all_the_same_have_no_moments():
    events = [(user, item, 7) for user in range(9) for item in range(4)]
    with pytest.raises(UserError, match=r"validation would begin at 7 and test at 7, expected"):
        select(log_of(events), 3, 0, GLOBAL_TIME)


def test_of_two_at_a_moment_the_first_line_is_held_out():
    events = [(0, "a", 1), (0, "b", 2), (0, "c", 5), (0, "d", 8), (0, "e", 8)]
    events += [(1, item, time) for time, item in enumerate("abcde")]
    found = select(log_of(events), 3, 0, GLOBAL_TIME, 0.2)
    assert found.moments == (4, 8)
    np.testing.assert_array_equal(
        found.split, [TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN, TRAIN, VALID]
    )
    assert (found.tied, found.unused, found.untrained) == (1, 1, 0)
