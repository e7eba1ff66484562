"""All contenders train the same: their first losses agree."""

import importlib

import pytest

from benchmarks import stepping, throughput, workload
from benchmarks.contenders import names
from fedvlr_jax.errors import UserError

# Flower starts servers and processes, which is not for a test: it is checked before every race.
TRIED = [entry for entry in names.BY_NAME.values() if entry.name != "flower"]


@pytest.fixture(scope="module")
def world():
    small = {"items": 60, "history_length": 3, "dim": 8, "local_epochs": 2}
    # The contenders have one device, and so no padding.
    return workload.world(workload.config(6, devices=1, **small))


@pytest.fixture(scope="module")
def expected(world):
    return losses(names.BY_NAME[names.REFERENCE], world)


def losses(entry, world):
    module = importlib.import_module(f"benchmarks.contenders.{entry.module}")
    return module.run(world, lambda c: stepping.first_losses(c, world.n_clients))


@pytest.mark.filterwarnings("ignore:jax.interpreters.pxla:DeprecationWarning")  # DrJAX
@pytest.mark.parametrize("entry", TRIED[1:], ids=lambda entry: entry.name)
def test_losses_agree(entry, world, expected):
    if entry.missing:
        pytest.skip(f"{', '.join(entry.missing)} not installed")
    found = losses(entry, world)
    throughput.check_losses({names.REFERENCE: expected, entry.name: found})
    assert expected[1] < expected[0], "something is learned"


def test_losses_that_differ_stop_the_race():
    with pytest.raises(UserError, match="b does not train what a trains"):
        throughput.check_losses({"a": [0.7, 0.6], "b": [0.7, 0.601]})
    with pytest.raises(UserError, match="b does not train"):
        throughput.check_losses({"a": [0.7, 0.6], "b": [0.7, float("nan")]})
