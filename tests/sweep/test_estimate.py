import dataclasses

import pytest

from fedvlr_jax import data
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation.simulation import build
from fedvlr_jax.sweep import estimate

SMALL = {"items": 40, "dim": 8, "local_epochs": 2, "negatives": 1, "rounds": 20}


def config(**settings):
    return Config.of(**SMALL | {"clients": 50} | settings)


def test_runs_of_one_program_are_timed_once():
    said = []
    runs = {"a": config(), "b": config(seed=1, rounds=200), "c": config(clients=60)}
    found = estimate.estimates(runs, said.append)
    assert said == [
        "timing 3 rounds like those of a",
        "timing 3 rounds like those of c",
    ]
    assert found["a"].seconds > 0
    # The start is shared, and ten times as many rounds and evaluations follow.
    assert found["a"].seconds < found["b"].seconds < 10 * found["a"].seconds
    assert found["a"].bytes == found["b"].bytes


def test_large_populations_are_timed_by_small_ones(monkeypatch):
    timed = []

    def time(small, _):
        timed.append((small.data.clients, small.method.cohort, small.schedule.eval_clients))
        return estimate._Timed(start=10.0, round=0.1, evaluation=0.5)

    monkeypatch.setattr(estimate, "_time", time)
    monkeypatch.setattr(estimate, "memory_of", lambda *_: 1)
    runs = {
        "all": config(clients=50_000),
        "cohort": config(clients=50_000, cohort=2000, eval_clients=100),
    }
    found = estimate.estimates(runs, lambda _: None)
    assert timed == [(1000, 0, 0), (1000, 1000, 100)]
    # 20 rounds of 50 times the clients; evaluations after every 5, and two more at the end.
    assert found["all"].seconds == pytest.approx(10 + 20 * 0.1 * 50 + 6 * 0.5 * 50)
    assert found["cohort"].seconds == pytest.approx(10 + 20 * 0.1 * 2 + 6 * 0.5)


def test_memory_grows_with_the_clients():
    few, many = (estimate.memory_of(config(clients=n), data.Kept()) for n in (10_000, 110_000))
    private = (many - few) / 100_000
    of_a_client = 8 * config_numbers()
    assert of_a_client < private < 3 * of_a_client + 4000
    assert few > 5e8  # the process itself


def config_numbers():
    """Private numbers of a client: head of 8 and a bias, a router of three views."""
    one = config()
    return build(one, data.load(one)).federation.training.model.private_numbers()


def test_the_first_run_that_cannot_fit_is_named(monkeypatch):
    sizes = {10: 1e9, 20: 5e9}
    monkeypatch.setattr(estimate, "memory_of", lambda c, _: int(sizes[c.data.clients]))
    runs = {f"clients={n}": config(clients=n) for n in sizes}
    estimate.refuse_what_cannot_fit(runs, 5.1)
    with pytest.raises(UserError, match=r"--max_memory=4: clients=20 takes about 5\.0 GB"):
        estimate.refuse_what_cannot_fit(runs, 4.0)


def test_a_small_population_is_timed_as_it_is():
    one = config()
    assert estimate._small(one) == one
    large = estimate._small(config(clients=5000))
    assert large.data.clients == 1000
    assert large.execution.buckets == 4
    assert dataclasses.replace(large, data=one.data, execution=one.execution) == one
