"""What studies and searches try, and when what takes long is drawn again."""

import pytest
from absl import flags

from experiments import paper, scheduling, search
from experiments.scheduling import Seldom
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.runs.study import Combination


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [1000.0]
    monkeypatch.setattr(scheduling.time, "monotonic", lambda: now[0])
    return now


def test_it_is_due_at_first_and_then_after_its_seconds(clock):
    seldom = Seldom(60.0)
    assert seldom.is_due(whole=False)
    clock[0] += 60.0
    assert not seldom.is_due(whole=False)
    clock[0] += 0.5
    assert seldom.is_due(whole=False)
    assert not seldom.is_due(whole=False)


def test_it_is_due_at_the_end_whenever_that_is(clock):
    seldom = Seldom(60.0)
    assert seldom.is_due(whole=False)
    assert seldom.is_due(whole=True)
    assert seldom.is_due(whole=True)
    clock[0] += 59.0  # since the end, which counts
    assert not seldom.is_due(whole=False)


def values_of(program, *arguments):
    values = flags.FlagValues()
    program.define_flags(values)
    values(["program", *arguments])
    return values


SOLVED = {line.split("=")[0] for line in scheduling.SOLVED}
COMBINATIONS = [Combination("fedavg", "fedvlr"), Combination("fedncf", "mlp")]


def test_studies_search_what_heads_are_found_by():
    values = values_of(paper)
    found = scheduling.grids(values, {}, COMBINATIONS)
    solved, stepped = found.values()
    assert len(solved) == len(set(solved)) == 24
    assert solved[0] == tuple((name, Config.of().flat()[name]) for name, _ in solved[0])
    assert {name for point in solved for name, _ in point} == SOLVED
    assert len(stepped) == 5 * 3
    assert {name for point in stepped for name, _ in point} == {"server_lr", "client_lr"}
    # What is set is not searched, and few combinations are all tried.
    settings = {
        name: x for name, x in found[COMBINATIONS[0]][0] if name not in ("dim", "server_lr")
    }
    left = scheduling.grids(values, settings, COMBINATIONS[:1])[COMBINATIONS[0]]
    assert {name for point in left for name, _ in point} == {"dim", "server_lr"}
    assert len(left) == 3 * 3
    searched = values_of(paper, "--search=dim=8,16")
    assert [len(x) for x in scheduling.grids(searched, {}, COMBINATIONS).values()] == [2, 2]


def test_rates_of_steps_are_refused_where_nothing_is_stepped():
    values = values_of(paper, "--client_rates=0.1")
    assert len(scheduling.grids(values, {}, COMBINATIONS)[COMBINATIONS[1]]) == 5
    with pytest.raises(UserError, match="no effect on heads that are solved"):
        scheduling.grids(values, {}, COMBINATIONS[:1])


def test_a_search_without_lines_is_of_what_heads_are_found_by():
    assert set(search.declared(values_of(search)).space) == SOLVED
    small = search.declared(values_of(search, "--dim=32"))
    assert set(small.space) == SOLVED - {"dim"}
    with pytest.raises(UserError, match="nothing is searched"):
        search.declared(values_of(search, "--backbone=fedncf"))
