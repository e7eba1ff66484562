import jax
import pytest

from fedvlr_jax import numerics
from fedvlr_jax.simulation import environment

NOW = {
    "version": "0.10.2",
    "platform": "cpu",
    "device_kind": "cpu",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_enable_x64": False,
}


def test_what_is_in_force_is_what_a_run_computes_with():
    found = environment.in_force()
    assert found.keys() == NOW.keys()
    assert found["version"] == jax.__version__
    assert found["device_kind"] == jax.devices()[0].device_kind
    with numerics.enable_x64(True), jax.threefry_partitionable(False):
        other = environment.in_force()
    # A run computes with 32 bits whatever is set, but draws as it is told.
    assert other == found | {"jax_threefry_partitionable": False}


@pytest.mark.parametrize(
    ("name", "was", "back"),
    [
        ("jax_default_prng_impl", "rbg", "JAX_DEFAULT_PRNG_IMPL=rbg"),
        ("jax_default_prng_impl", "unsafe_rbg", "JAX_DEFAULT_PRNG_IMPL=unsafe_rbg"),
        ("jax_threefry_partitionable", False, "JAX_THREEFRY_PARTITIONABLE=False"),
        ("jax_random_seed_offset", 7, "JAX_RANDOM_SEED_OFFSET=7"),
        ("jax_high_dynamic_range_gumbel", True, "JAX_HIGH_DYNAMIC_RANGE_GUMBEL=True"),
        ("jax_enable_x64", True, "JAX_ENABLE_X64=True"),
        ("jax_default_prng_impl", ["x"] * 1000, "JAX_DEFAULT_PRNG_IMPL="),
    ],
)
def test_another_setting_is_refused_with_the_way_back(name, was, back):
    reason = environment.difference(NOW | {name: was}, NOW)
    assert reason.startswith(f"{name} was ")
    assert back in reason
    assert len(reason) < 300


@pytest.mark.parametrize(
    "began",
    [
        NOW,
        NOW | {"version": "0.9.0"},
        NOW | {"platform": "gpu"},
        {},
        {k: v for k, v in NOW.items() if k != "jax_threefry_partitionable"},
        NOW | {"jax_of_a_later_version": 1},
        NOW | {"jax_default_matmul_precision": None},  # of runs without a --precision
    ],
)
def test_what_does_not_decide_draws_is_not_refused(began):
    assert environment.difference(began, NOW) is None


@pytest.mark.parametrize(
    ("began", "words"),
    [
        ({}, ["older version of this package"]),
        ({"version": "0.9.1"}, ["jax 0.9, goes on with 0.10"]),
        ({"version": "0.11.0"}, ["jax 0.11, goes on with 0.10"]),
        ({"version": "0.10.0"}, []),
        ({"version": "0.10.0, 0.10.1"}, []),
        ({"version": "0.9.1, 0.10.0"}, ["jax 0.9, goes on with 0.10"]),
        ({"platform": "gpu"}, ["platform gpu, goes on with cpu"]),
        ({"version": "0.9.1", "platform": "gpu"}, ["jax 0.9", "platform gpu"]),
        ({"version": 7}, ["jax unknown, goes on with 0.10"]),
        ({"version": None, "platform": []}, ["jax unknown", "platform unknown"]),
        ({"version": ""}, ["goes on with 0.10"]),
        ({"device_kind": "TPU v5 lite"}, ["device TPU v5 lite, goes on with cpu"]),
        ({"device_kind": "unknown, cpu"}, ["device unknown, goes on with cpu"]),
        ({"platform": "gpu", "device_kind": "NVIDIA H100 80GB HBM3"}, ["platform gpu"]),
    ],
)
def test_another_version_or_platform_is_told(began, words):
    found = environment.notes(NOW | began if began else {}, NOW)
    assert len(found) == len(words)
    for note, word in zip(found, words, strict=True):
        assert word in note
        assert "numbers may differ from an uninterrupted run's" in note


def test_a_run_from_before_devices_were_recorded_goes_on_without_a_word():
    began = {name: value for name, value in NOW.items() if name != "device_kind"}
    assert environment.notes(began, NOW) == []
    assert environment.joined(began, NOW)["device_kind"] == "unknown, cpu"


def test_versions_are_kept_in_order():
    once = environment.joined(NOW | {"version": "0.9.1"}, NOW)
    assert once["version"] == "0.9.1, 0.10.2"
    assert environment.joined(once, NOW)["version"] == "0.9.1, 0.10.2"
    assert environment.joined({}, NOW)["platform"] == "unknown, cpu"
