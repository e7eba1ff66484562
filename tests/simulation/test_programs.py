"""Every product of the programs of a run states the precision that was asked for."""

import re

import jax
import pytest

from fedvlr_jax.simulation import programs, simulation
from fedvlr_jax.simulation.trainers import create
from tests import worlds

PRODUCT = re.compile(r"\b(?:dot|dot_general|convolution)\b.* -> tensor")
STATED = re.compile(r"precision = \[(\w+), (\w+)\]")
CASES = [
    {"views": "sum,mlp,gate,attention,image,graph"},
    {"variant": "vbpr", "backbone": "fcf", "clip_norm": 1.0, "noise_multiplier": 1.0},
    {"backbone": "fedncf", "client_mode": "local"},
    {"backbone": "pfedrec", "variant": "mlp", "gradient_noise": 0.1},
    {"backbone": "fedrap", "variant": "id", "late": 0.5},
]


class HaltedError(Exception):
    """Where a run would compile its programs: holds these by name, lowered."""


def halt(settings, lower=programs.lowered):
    raise HaltedError(lower(settings))


@pytest.fixture
def lowered(monkeypatch, tmp_path):
    """Lowers the programs of a run, or of several that train together; their texts by name."""

    def texts(*runs):
        configs = [worlds.config(**settings) for settings in runs]
        data = worlds.dataset()
        others = [(config, data) for config in configs[1:]]
        monkeypatch.setattr(programs, "compiled", halt)
        made = create(configs, simulation.build(configs[0], data, others), tmp_path)
        with pytest.raises(HaltedError) as halted:
            made.compile()
        (found,) = halted.value.args
        return {name: program.as_text() for name, program in found.items()}

    return texts


def stated(texts):
    """The precisions of all products; a product without one counts as ""."""
    lines = [line for text in texts for line in text.splitlines() if PRODUCT.search(line)]
    found = [STATED.search(line) for line in lines]
    return {name for one in found for name in (one.groups() if one else ("",))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(map(str, case.values())))
def test_every_product_is_as_exact_as_asked(lowered, case):
    texts = lowered(case | {"precision": "high"})
    assert stated(texts.values()) == {"HIGH"}
    assert stated([texts["ranks"]]), "evaluation has products"


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: ",".join(map(str, case.values())))
def test_training_in_waves_states_it(lowered, case):
    assert stated(lowered(case | {"precision": "high", "private_state": "host"}).values()) == {
        "HIGH"
    }


@pytest.mark.parametrize(
    ("settings", "name"), [({}, "HIGHEST"), ({"precision": "default"}, "DEFAULT")]
)
def test_products_are_exact_unless_asked_otherwise(lowered, settings, name):
    with jax.default_matmul_precision("bfloat16"):  # as the environment may say
        assert stated(lowered(settings).values()) == {name}


def test_runs_that_train_together_state_it(lowered):
    runs = [{"precision": "high", "seed": seed} for seed in (0, 1)]
    assert stated(lowered(*runs).values()) == {"HIGH"}
