"""What a run needs is counted before anything is compiled, and told by the compiler after."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import cores
from fedvlr_jax.simulation import fit, memory, programs, trainers
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


def pairs(n_items, **settings):
    """A simulation that begins with pairs of items, and all else small."""
    small = {"variant": "id", "modalities": "id", "warm_start": "spectral", "chunk": 1}
    return worlds.simulation(worlds.dataset(n_items=n_items), **(small | settings))


@pytest.mark.parametrize("experts", [pytest.param("none", marks=pytest.mark.slow), "neighbours"])
def test_pairs_take_what_the_compiler_says(experts):
    simulation = pairs(700, experts=experts, devices=2)
    settings = programs.settings_of(simulation, simulation.state_shapes())
    found = fit.program_bytes(programs.compiled(settings))
    assert fit.table_bytes(simulation.federation) == pytest.approx(found, rel=0.25)
    assert fit.table_bytes(worlds.simulation().federation) == 0


@pytest.mark.parametrize(
    ("items", "devices", "experts", "sentence"),
    [
        (
            20_000,
            8,
            "neighbours",
            r"every pair of 20000 items takes 9.6 GB on each of the 8 devices, which have 24.0 GB "
            r"together; expected --experts=none, or fewer items, fewer than 10606, or --devices=2$",
        ),
        (50_000, 1, "neighbours", r"takes 60 GB .* --experts=none, .*, fewer than 30000$"),
        (50_000, 1, "none", None),
        (4096, 8, "none", None),
    ],
)
def test_pairs_that_cannot_fit_are_refused(items, devices, experts, sentence, monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: int(24e9))
    monkeypatch.setattr(cores, "meet_in_one_order", lambda: False)  # as newer versions of XLA
    federation = pairs(items, devices=devices, experts=experts).federation
    if sentence is None:
        fit.check(federation, resident=True)
        return
    with pytest.raises(UserError, match=sentence):
        fit.check(federation, resident=True)


def test_pairs_for_which_there_is_no_memory_have_another_way(monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: int(1e9))
    federation = pairs(4000, devices=8).federation
    with pytest.raises(UserError, match=r"expected --warm_basis, which needs no pairs, or fewer"):
        fit.check(federation, resident=True)


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
