import dataclasses

import numpy as np
import pytest

from fedvlr_jax import names
from fedvlr_jax.config import (
    BY_SOLVER,
    SYNTHETIC_DEFAULTS,
    Config,
    ExecutionConfig,
    defaults_beside,
    having,
    leaves,
)
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import Role


def test_defaults_are_resolved():
    config = Config.of()
    assert config.data.clients == 1000
    assert config.method.views is None
    assert config.flat()["views"] is None
    assert config.flat()["modalities"] == "image,text,id"


def test_flat_settings_make_the_same_configuration_again():
    config = Config.of(variant="mlp", views=["image", "text"], clients=50, rounds=7, router_lr=2)
    assert Config.of(**config.flat()) == config
    assert config.method.router_lr == 2.0


def test_every_setting_explains_itself():
    for name, leaf in leaves().items():
        assert len(leaf.metadata["help"]) > 20, name


def test_lists_of_settings_follow_from_their_roles():
    layout = {leaf.name for leaf in dataclasses.fields(ExecutionConfig)} | {"plugins"}
    assert set(having(Role.LAYOUT)) == layout
    # Where private states are decides what checkpoints hold.
    assert set(having(Role.RESUMED)) == layout - {"private_state"} | {"rounds", "data"}
    assert set(having(Role.DATA)) == {"data", *SYNTHETIC_DEFAULTS}
    assert having(Role.CLIENTS) == ("cohort", "buffer", "eval_clients")
    rates = [name for name in leaves() if name.endswith("_lr")]
    assert len(rates) == 6
    assert set(rates) < set(having(Role.TRACED))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clients": 0}, "--clients=0: expected a whole number from 1 to"),
        ({"rounds": -3}, "--rounds=-3: expected a whole number from 1 to"),
        ({"rounds": 2.5}, "--rounds=2.5: expected a whole number from 1 to"),
        ({"rounds": True}, "--rounds=True: expected a whole number"),
        ({"items": 3}, "--items=3: expected a whole number from 20 to"),
        ({"server_lr": float("nan")}, "--server_lr=nan: expected a finite number"),
        ({"client_lr": -1.0}, "--client_lr=-1.0: expected a finite number of at least 0"),
        ({"variant": "FedVLR"}, "--variant=FedVLR: expected one of fedvlr, mlp, vbpr, id"),
        ({"backbone": "x"}, "--backbone=x: expected one of fedavg"),
        (
            {"late": 0.1, "clip_norm": 1, "noise_multiplier": 1},
            "--late=0.1: the privacy budget is known for uploads that arrive in their round only",
        ),
        ({"late": 1}, "--late=1: expected a number from 0 to below 1"),
        ({"views": "sum,sam"}, "--views=sam: expected names from sum, mlp, gate"),
        ({"views": "sum,sum"}, "--views=sum,sum: a name appears twice"),
        ({"views": ""}, "--views=: expected names from"),
        ({"modalities": "image,sound"}, "--modalities=sound: expected names from image, text, id"),
        (
            {"modalities": "text,id", "views": "image_dominant"},
            "--modalities=text,id: the view image_dominant needs image",
        ),
        ({"modalities": "image", "variant": "id"}, "--modalities=image: the view id needs id"),
        ({"server_optimizer": "adan"}, "--server_optimizer=adan: expected one of optax's sgd"),
        ({"cohort": 1001}, "--cohort=1001: expected at most the 1000 clients there are"),
        ({"clients": 5, "eval_clients": 6}, "--eval_clients=6: expected at most the 5 clients"),
        ({"seed": -1}, "--seed=-1: expected a whole number from 0"),
        ({"seed": 2**32}, "--seed=4294967296: expected"),
        ({"data": ""}, "--data=: expected a folder"),
        ({"data": "d", "clients": 5}, "--clients=5: only --data=synthetic takes it"),
        ({"items": 40, "history_length": 21}, "--history_length=21: expected at most half"),
        ({"preference_concentration": 0.0}, "--preference_concentration=0.0: expected a finite"),
        ({"colour": "red"}, "--colour: unknown setting; the known ones are data, clients"),
        ({"out": 3}, "--out: unknown setting"),
        ({"chunk": 10**20}, "--chunk=100000000000000000000: expected a whole number"),
        ({"server_lr": 10**400}, "--server_lr=1000"),
        ({"views": []}, "--views=[]: expected names from"),
        ({"cutoffs": "0,10"}, "--cutoffs=0: expected a list in ascending order, each a whole"),
        ({"cutoffs": "10,ten"}, "--cutoffs=ten: expected a list in ascending order"),
        ({"cutoffs": "010"}, "--cutoffs=010: expected a list in ascending order"),
        ({"cutoffs": "9" * 5000}, "--cutoffs=9999"),
        ({"cutoffs": "10,5"}, "--cutoffs=10,5: expected a list in ascending order"),
        ({"cutoffs": [5, 5]}, "--cutoffs=5,5: expected a list in ascending order"),
        ({"cutoffs": [2.5]}, "--cutoffs=2.5: expected a list in ascending order"),
        ({"cutoffs": [True]}, "--cutoffs=True: expected a list in ascending order"),
        ({"cutoffs": ()}, "--cutoffs=(): expected a list in ascending order"),
        ({"cutoffs": 10}, "--cutoffs=10: expected a list in ascending order"),
        ({"cutoffs": None}, "--cutoffs=None: expected a list in ascending order"),
        ({"cutoffs": "10001"}, "--cutoffs=10001: expected a list in ascending order, each a whole"),
        ({"cutoffs": "5,41", "items": 40}, "--cutoffs=5,41: expected at most the 40 items"),
        (
            {"cutoffs": "5,10", "target": "valid/ndcg@50:3"},
            "--target=valid/ndcg@50:3: expected a metric at one of the --cutoffs, which are 5, 10",
        ),
    ],
)
def test_mistakes_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(UserError) as caught:
        Config.of(**settings)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_names_are_lower_case_and_optimizers_exist():
    import optax

    for group in (names.BACKBONES, names.VARIANTS, names.VIEWS, names.OPTIMIZERS):
        assert all(name == name.lower() for name in group)
    assert all(hasattr(optax, name) for name in names.OPTIMIZERS)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"client_solver": "sgd", "client_lr": 0.5},
        {"backbone": "fedncf", "router_lr": 0.1},
        {"client_mode": "local"},
        {"warm_start": "none"},
        {"client_solver": "sgd", "warm_start": "spectral", "als_passes": 1},
        {"backbone": "fcf", "server_lr": 0.03, "local_epochs": 5},
        {"clip_norm": 1.0, "noise_multiplier": 1.0, "als_passes": 1},
    ],
    ids=str,
)
def test_what_differs_from_the_defaults_makes_the_same_configuration(given):
    config = Config.of(**given)
    flat, default = config.flat(), defaults_beside(config)
    differs = {name: x for name, x in flat.items() if x is not None and x != default[name]}
    assert set(differs) == set(given)
    assert Config.of(**differs) == config


def test_defaults_go_with_the_solver_of_heads():
    solved, stepped = (Config.of(backbone=name).method for name in ("fedavg", "fedncf"))
    assert (solved.client_solver, stepped.client_solver) == ("exact", "sgd")
    for name, by_solver in BY_SOLVER.items():
        assert getattr(solved, name) == by_solver["exact"]
        assert getattr(stepped, name) == by_solver["sgd"]
    assert Config.of(client_mode="local").method.client_solver == "sgd"
    cold = Config.of(warm_start="none").method
    assert (cold.client_solver, cold.als_passes, cold.experts) == ("exact", 0, "none")
    noisy = Config.of(clip_norm=1.0, noise_multiplier=1.0).method
    assert (noisy.warm_start, noisy.als_passes, noisy.experts) == ("spectral", 0, "none")
    with pytest.raises(UserError, match="--client_solver=exact: solves for a linear head"):
        Config.of(backbone="fedrap", client_solver="exact")


@pytest.mark.parametrize(
    "setting", [{"client_lr": 0.1}, {"negatives": 1}, {"client_optimizer": "adam"}], ids=str
)
def test_what_only_steps_of_heads_depend_on_is_refused_where_heads_are_solved(setting):
    ((name, value),) = setting.items()
    words = f"--{name}={value}: has no effect on heads that are solved, expected --client_solver"
    with pytest.raises(UserError, match=words):
        Config.of(**setting)
    assert Config.of(client_solver="sgd", **setting)


@pytest.mark.parametrize("given", ["5,40", [5, 40], (5, 40.0), np.array([5, 40])])
def test_cutoffs_are_a_list_however_they_are_given(given):
    config = Config.of(cutoffs=given, items=40)
    assert config.schedule.cutoffs == (5, 40)
    assert config.flat()["cutoffs"] == "5,40"
    assert config.schedule.ranked == 50
    assert Config.of(**config.flat()) == config
    assert Config.of(cutoffs="10,100").schedule.ranked == 100


def test_the_default_cutoffs_go_with_any_number_of_items():
    assert Config.of(items=20, cutoffs="10,20,50") == Config.of(items=20)
