import pytest

from fedvlr_jax import data
from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.runs import estimate
from fedvlr_jax.simulation.simulation import build

SMALL = {
    "client_solver": "sgd",
    "items": 40,
    "dim": 8,
    "local_epochs": 2,
    "negatives": 1,
    "rounds": 20,
    "devices": 1,
}


def config(**settings):
    return Config.of(**SMALL | {"clients": 50} | settings)


def test_runs_that_differ_in_clients_are_timed_once_and_compiled_once_for_each_number():
    said = []
    changes = {"a": {}, "b": {"seed": 1, "rounds": 200}, "c": {"clients": 60}, "d": {}}
    runs = {name: config(variant="id", **change) for name, change in changes.items()}
    found = estimate.estimates(runs, said.append)
    assert said == ["timing rounds like those of a (this takes up to a minute)"]
    assert found["a"].compiling == found["c"].compiling > 0
    assert found["b"].compiling == found["d"].compiling == 0
    # Ten times as many rounds and evaluations.
    alone = {name: one.seconds - one.compiling for name, one in found.items()}
    assert alone["d"] == pytest.approx(alone["a"])
    assert 0 < alone["a"] < alone["b"] < 10 * alone["a"]
    assert found["a"].bytes == found["b"].bytes


TIMED = estimate.Timed(
    clients=1000,
    data=2.0,
    compiling=10.0,
    round=0.5,
    update=0.001,
    evaluation=0.25,
    saving=3.0,
    state=10**8,
)


def test_kinds_are_timed_by_small_populations_of_the_largest(monkeypatch):
    timed = []

    def time(small, _):
        timed.append((small.data.clients, small.method.cohort, small.execution.buckets))
        return TIMED

    monkeypatch.setattr(estimate, "_time", time)
    monkeypatch.setattr(estimate, "memory_of", lambda *_: 1)
    runs = {
        "some": config(clients=50),
        "all": config(clients=50_000),
        "cohort": config(clients=50_000, cohort=2000, eval_clients=100),
        "other": config(clients=70, dim=4),
        "one bucket": config(clients=5000, buckets=1),
    }
    found = estimate.estimates(runs, lambda _: None)
    assert timed == [(1000, 0, 4), (70, 0, 0), (1000, 0, 1)]
    assert all(one.compiling == 10 for one in found.values())


# 20 rounds and 4 evaluations; two more rankings at the end. Small states are saved every 10 s.
WORK = [
    ({"clients": 1000}, 2 + 20 * 1.5 + 6 * 0.25 + 4 * 3),
    ({"clients": 1000, "dropout": 0.5}, 2 + 20 * 1.0 + 6 * 0.25 + 3 * 3),
    ({"clients": 1000, "cohort": 100}, 2 + 20 * 0.6 + 6 * 0.25 + 2 * 3),
    ({"clients": 1000, "cohort": 100, "dropout": 0.5}, 2 + 20 * 0.55 + 6 * 0.25 + 2 * 3),
    ({"clients": 1000, "eval_clients": 100}, 2 + 20 * 1.5 + 6 * 0.025 + 4 * 3),
    ({"clients": 100}, 0.2 + 20 * 0.6 + 6 * 0.025 + 2 * 3),
    ({"clients": 10_000}, 20 + 20 * 10.5 + 6 * 2.5 + 4 * 30),
    ({"clients": 10_000, "cohort": 100}, 20 + 20 * 0.6 + 6 * 2.5 + 4 * 30),
    ({"clients": 1000, "rounds": 40}, 2 + 40 * 1.5 + 10 * 0.25 + 7 * 3),
    ({"clients": 1000, "eval_every": 20}, 2 + 20 * 1.5 + 3 * 0.25 + 1 * 3),
    ({"clients": 1000, "checkpoint_seconds": 0}, 2 + 20 * 1.5 + 6 * 0.25 + 4 * 3),
]


@pytest.mark.parametrize(("settings", "seconds"), WORK, ids=str)
def test_seconds_grow_with_what_is_done(settings, seconds):
    assert estimate.seconds_of(config(**settings), TIMED) == pytest.approx(seconds)


def test_memory_grows_with_the_clients(monkeypatch):
    monkeypatch.setattr(estimate.memory, "now_bytes", lambda: 500_000_000)  # the process itself
    few, many = (
        estimate.memory_of(config(clients=n), data.DatasetCache()) for n in (10_000, 110_000)
    )
    of_a_client = (many - few) / 100_000
    private = 4 * config_numbers()
    assert private < of_a_client < private + 500  # and its train items, on host and devices
    assert few > 500_000_000 + 10_000 * private


def config_numbers():
    """Numbers of a client's row: head of 8 and a bias, a router of three views, and zeros."""
    one = config()
    return row_numbers(build(one, data.load(one)).federation.training.model)


def test_the_first_run_that_cannot_fit_is_named(monkeypatch):
    sizes = {10: 1e9, 20: 5e9}
    monkeypatch.setattr(estimate, "memory_of", lambda c, *_: int(sizes[c.data.clients]))
    runs = {f"clients={n}": config(clients=n) for n in sizes}
    estimate.refuse_what_cannot_fit(runs, 5.1)
    with pytest.raises(UserError, match=r"--max_memory=4: clients=20 takes about 5\.0 GB"):
        estimate.refuse_what_cannot_fit(runs, 4.0)


def test_a_small_population_stands_for_itself():
    kind = estimate._kind(config())
    assert estimate._like(kind, 50).data.clients == 50
    assert estimate._like(kind, 50).execution == config().execution
    large = estimate._like(kind, 5000)
    assert large.data.clients == 1000
    assert large.execution.buckets == 4
