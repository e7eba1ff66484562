import re

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.errors import UserError
from fedvlr_jax.runs import space
from fedvlr_jax.runs.space import Choice, Range, Search


def test_lines_are_ranges_and_lists():
    lines = ("server_lr=log:1e-4:1e-1", "dropout=lin:0:0.5", "dim=32,64", "negatives=log:1:8")
    assert space.read(lines) == {
        "server_lr": Range(1e-4, 1e-1, log=True, whole=False),
        "dropout": Range(0.0, 0.5, log=False, whole=False),
        "dim": Choice((32, 64)),
        "negatives": Range(1.0, 8.0, log=True, whole=True),
    }
    assert space.read(["views=sum,mlp|image"]) == {"views": Choice(("sum,mlp", "image"))}
    assert space.read(["variant=mlp"]) == {"variant": Choice(("mlp",))}


@pytest.mark.parametrize(
    ("lines", "words", "right"),
    [
        (["colour=1"], "unknown setting colour", "--search="),
        (["cutoffs=5|10"], "decide what scores are", "--search=server_lr=0.01,0.1"),
        (["server_lrr=1"], "unknown setting server_lrr", "--search=server_lr=0.01,0.1"),
        (["clients"], "has no values", "--search=clients=100,1000"),
        (["clients="], "has no values", "--search=clients=100,1000"),
        (["clients=10,,20"], "expected whole numbers", "--search=clients=100,1000"),
        (["variant=mlp,"], "a value is empty", "--search=variant=fedvlr,mlp"),
        (["clients=10,10"], "named twice", "--search=clients=100,1000"),
        (["dim=8,16", "dim=lin:8:16"], "dim is searched twice", "--search=dim=100,1000"),
        (
            ["server_lr=log:1e-1:1e-4"],
            "goes backwards",
            "--search=server_lr=log:1e-4:1e-1",
        ),
        (["server_lr=lin:1:1"], "goes nowhere", "--search=server_lr=lin:1e-4:1e-1"),
        (["server_lr=log:0:1"], "above 0", "--search=server_lr=log:1e-4:1e-1"),
        (["dim=log:0:8"], "above 0", "--search=dim=log:8:128"),
        (["server_lr=log:1e-4"], "log:first:last", "--search=server_lr=log:1e-4:1e-1"),
        (["server_lr=log:1e-4:x"], "log:first:last", "--search=server_lr=log:1e-4:1e-1"),
        (["server_lr=lin:0:inf"], "lin:first:last", "--search=server_lr=lin:1e-4:1e-1"),
        (["server_lr=log:1e-4:1:4"], "log:first:last", "--search=server_lr=log:1e-4:1e-1"),
        (["dim=lin:8:16.5"], "expected whole numbers", "--search=dim=lin:8:128"),
    ],
)
def test_a_bad_line_gets_a_sentence_with_a_right_one(lines, words, right):
    with pytest.raises(UserError) as caught:
        space.read(lines)
    sentence = str(caught.value)
    assert sentence.startswith(f"--search={lines[-1]}: ")
    assert words in sentence
    assert right in sentence
    shown = re.search(r".*--search=(\S+)", sentence)[1]
    assert space.read([shown])


def test_something_has_to_be_searched():
    with pytest.raises(UserError, match=r"nothing is searched, expected .*--search=server_lr=log"):
        space.read([])


def search(*lines, seeds=(0,), **settings):
    return Search(settings, space.read(lines), seeds)


@pytest.mark.parametrize(
    ("lines", "settings", "words"),
    [
        (["dropout=lin:0:1"], {}, "--search=dropout: --dropout=1.0: expected a number from 0 to"),
        (["variant=fedvlr,all"], {}, "--search=variant: --variant=all: expected one of"),
        (["views=sum|red"], {}, "--views=red: expected names from"),
        (["dim=lin:0:8"], {}, "--search=dim: --dim=0: expected a whole number from 1"),
        (["dim=8,16"], {"rounds": 0}, "--rounds=0: expected"),
        (["dim=8,16"], {"dim": 8}, "--dim=8: dim is searched as well, expected one of the two"),
        (["noise_multiplier=lin:0.5:1"], {}, "--clip_norm above 0"),
        (
            ["cohort=lin:1:50", "clients=20,40"],
            {},
            "--search=cohort: --cohort=50: expected at most",
        ),
    ],
)
def test_values_that_no_run_would_take_are_refused_at_once(lines, settings, words):
    with pytest.raises(UserError) as caught:
        search(*lines, **settings).first()
    assert words in str(caught.value)


def test_settings_that_need_each_other_may_be_searched_together():
    found = search("noise_multiplier=lin:0.5:1", "clip_norm=log:0.1:1").first()
    assert found.participation.noise_multiplier == 0.5
    assert found.participation.clip_norm == 0.1


def test_an_end_has_to_go_with_some_of_the_others():
    assert search("clients=20,40", "cohort=40,20").first().method.cohort == 20
    assert search("clients=20,40", "cohort=lin:1:40").first().method.cohort == 1


def test_runs_are_named_by_what_is_searched_and_their_seed():
    found = search("server_lr=log:1e-4:1e-1", "dim=8,16", seeds=(0, 1), rounds=3)
    runs = found.runs({"server_lr": 0.00123457, "dim": 8})
    assert list(runs) == [f"server_lr=0.00123457,dim=8,seed={seed}" for seed in (0, 1)]
    assert [c.schedule.seed for c in runs.values()] == [0, 1]
    assert {c.schedule.rounds for c in runs.values()} == {3}
    assert found.config({"server_lr": 0.00123457, "dim": 8}) == next(iter(runs.values()))
    assert list(search("seed=lin:0:9", seeds=None).runs({"seed": 4})) == ["seed=4"]


@given(
    first=st.floats(1e-6, 1e3), factor=st.floats(1.001, 1e4), log=st.booleans(), number=st.floats()
)
def test_what_is_trained_with_is_in_the_range_and_short(first, factor, log, number):
    axis = Range(first, first * factor, log, whole=False)
    inside = min(max(number, axis.first), axis.last) if number == number else axis.first
    used = axis.used(inside)
    assert axis.first <= used <= axis.last
    assert used in (axis.first, axis.last) or float(f"{used:.6g}") == used
    assert used == pytest.approx(inside, rel=1e-5)


def test_what_is_suggested_is_in_the_space():
    lines = ("server_lr=log:1e-4:1e-1", "dropout=lin:0:0.5", "dim=32,64", "negatives=log:1:8")
    found = space.read(lines)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask({name: axis.distribution for name, axis in found.items()})
        Search({"client_solver": "sgd"}, found, (0,)).config(
            {name: axis.used(trial.params[name]) for name, axis in found.items()}
        )
        assert isinstance(trial.params["negatives"], int)
