"""Values that are finite and huge: a run whose scores mean nothing has diverged, and says so."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from fedvlr_jax.data.types import Catalogue
from fedvlr_jax.errors import DivergedError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.evaluate import NOT_FINITE
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.run import train_together
from tests import worlds

SGD = {"server_optimizer": "sgd"}
HUGE = [
    ({"variant": "id", "client_lr": 1e30}, 1),
    ({"variant": "id", "client_lr": 1e38}, 1),
    ({"variant": "id", "server_lr": 1e30}, 1),
    ({"variant": "id", "server_lr": 1e20, "client_lr": 1e-30}, 1),
    ({"variant": "id", "server_lr": 1e3, "client_lr": 1e2} | SGD, 1),
    ({"variant": "id", "server_lr": 1e10, "client_lr": 1e10} | SGD, 1),
    ({"variant": "mlp", "server_lr": 1e18}, 1),
    ({"variant": "mlp"}, 1e38),
    ({"variant": "mlp"}, 1e20),
    ({"variant": "vbpr", "client_lr": 1e25}, 1),
    ({"variant": "vbpr"}, 1e18),
    ({"variant": "fedvlr", "client_lr": 1e30}, 1),
    ({"variant": "fedvlr", "router_lr": 1e30}, 1),
    ({"variant": "fedvlr"}, 1e37),
    ({"variant": "fedvlr"}, 1e18),
]


def scaled(size):
    data = worlds.dataset()
    rows = (data.catalogue.image, data.catalogue.text)
    return dataclasses.replace(data, catalogue=Catalogue(*(size * x for x in rows)))


def is_finite(value):
    """Whether all numbers of a JSON value are finite."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return all(map(is_finite, parts))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(("settings", "size"), HUGE)
def test_what_overflows_has_diverged_or_has_finite_results(settings, size, tmp_path):
    config = worlds.config(rounds=3, eval_every=3, **settings)
    out = tmp_path / "run"
    (found,) = train_together([config], [out], [Silent()], [scaled(np.float32(size))])
    if isinstance(found, DivergedError):
        assert str(found).startswith("round ")
        assert "not finite" in str(found)
        assert not (out / "summary.json").exists()
    else:
        assert is_finite(json.loads((out / "summary.json").read_text()))
        with np.load(out / "per_user.npz") as arrays:
            assert np.isfinite(arrays["reliance"]).all()
            assert np.isfinite(arrays["view_weights"]).all()
            assert len(arrays["user"]) == len(worlds.LENGTHS)


@pytest.mark.parametrize("size", [1e20, 1e30, 1e38, np.inf, np.nan])
def test_scores_without_a_finite_square_are_no_ranking(size):
    """Parameters are finite, their products are not: nobody has a rank, with an item or not."""
    simulation = worlds.simulation(variant="id")
    trainer = OnDevice(simulation, seeds=[0])
    trainer.compile()
    (run,) = trainer.runs
    assert (run.ranks("test") >= -1).all()
    states = worlds.opened(simulation, run.state.private)
    huge = states._replace(head=_filled(states.head, size))
    private = worlds.closed(huge, like=run.state.private)
    run.state = run.state._replace(private=private)
    assert (run.ranks("test") == NOT_FINITE).all()


def _filled(tree, size):
    return jax.tree.map(lambda x: x * 0 + np.float32(size), tree)


def test_of_runs_together_those_that_overflow_have_diverged(tmp_path):
    rates = (0.03, 1e30, 0.05)
    configs = [
        worlds.config(variant="id", rounds=3, eval_every=3, client_lr=rate) for rate in rates
    ]
    outs = [tmp_path / str(k) for k in range(3)]
    found = train_together(configs, outs, [Silent()] * 3, [worlds.dataset()] * 3)
    assert [isinstance(one, DivergedError) for one in found] == [False, True, False]
    assert is_finite(found[0].summary)
