"""What the environment says of JAX changes no number of ours."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import numerics

SETTINGS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_matmul_precision": "bfloat16",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
    "jax_disable_most_optimizations": True,
    "jax_use_shardy_partitioner": False,
    "jax_error_checking_behavior_nan": "raise",
    "jax_scan3": True,
}


@contextlib.contextmanager
def told(name, value):
    """JAX told something for the whole process, as by the environment."""
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@numerics.as_written()
def computed():
    """Something of all that the settings touch, and the program that made it."""

    def work(carry, x):
        carry = jnp.tanh(carry @ jnp.ones((3, 3)) + x) / jnp.float32(3)
        return carry, (carry > 0).sum() + jnp.log(carry.min() - 1)  # a NaN, on purpose

    program = jax.jit(lambda x: jax.lax.scan(work, jnp.ones((2, 3)), x))
    text = program.lower(jnp.arange(4.0)).as_text()
    found = jax.tree.map(np.asarray, program(jnp.arange(4.0)))
    return text, (*found, np.asarray(jnp.arange(3) + 0.5), np.asarray(jnp.ones(3)[None] + 1))


# A version of JAX may lack one.
@pytest.mark.parametrize("name", [name for name in SETTINGS if name in jax.config.values])
def test_a_setting_of_jax_changes_nothing(name):
    text, expected = computed()
    with told(name, SETTINGS[name]):
        again, found = computed()
        assert jax.config.values[name] == SETTINGS[name], "set back"
    assert again == text
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_what_a_caller_has_set_around_a_call_is_left_to_it():
    with numerics.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert computed()[1][0].dtype == np.float32
        assert jnp.ones(1).dtype == np.float64


def test_the_random_generator_is_the_callers():
    with told("jax_default_prng_impl", "rbg"), numerics.as_written():
        assert jax.random.key(0).dtype == jax.random.key(0, impl="rbg").dtype
