"""What a run needs is counted before anything is compiled, and told by the compiler after."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation import fit, memory, trainers
from tests import worlds

NUMBERS = 1000


def test_what_a_program_writes_over_counts_once():
    def step(state, data):
        return state + data.sum()

    state, data = jnp.ones(NUMBERS), jnp.ones(NUMBERS)
    kept, donated = (
        fit.program_bytes({"step": program.lower(state, data).compile()})
        for program in (jax.jit(step), jax.jit(step, donate_argnums=0))
    )
    assert kept == pytest.approx(3 * 4 * NUMBERS, abs=200)
    assert donated == pytest.approx(2 * 4 * NUMBERS, abs=200)


def test_the_largest_program_counts():
    small, large = (
        jax.jit(lambda x: 2 * x).lower(jnp.ones(numbers)).compile() for numbers in (10, NUMBERS)
    )
    assert fit.program_bytes({"a": small, "b": large}) == fit.program_bytes({"b": large})


def test_a_chunk_is_as_large_as_its_bucket_says():
    federation = worlds.simulation(chunk=3).federation
    (bucket,) = federation.buckets
    assert bucket.chunk == 3
    assert fit.chunk_bytes(federation) == 4 * 3 * bucket.floats
    several = dataclasses.replace(federation, runs=4)
    assert fit.chunk_bytes(several) == 4 * fit.chunk_bytes(federation)


@pytest.mark.parametrize("place", ["device", "host"])
def test_what_cannot_fit_is_refused_before_it_is_compiled(place, tmp_path, monkeypatch):
    config = worlds.config(private_state=place)
    simulation = worlds.simulation(private_state=place)
    needed = fit.chunk_bytes(simulation.federation)
    needed += (place == "device") * fit.state_bytes(simulation.federation)
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)
    for there, fits in ((1.2 * needed, True), (needed, False)):
        monkeypatch.setattr(memory, "host_bytes", lambda there=there: int(there))
        if fits:
            assert trainers.place_of_states(config, simulation) == place
        else:
            with pytest.raises(UserError, match=r"out of device memory: .*; expected "):
                trainers.create([config], simulation, tmp_path)
