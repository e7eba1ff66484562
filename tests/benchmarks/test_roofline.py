import jax
import pytest

from benchmarks import roofline, workload
from benchmarks.contenders import client
from fedvlr_jax.simulation.mesh import make_mesh


def test_counts_follow_what_xla_counts():
    # The plain client of the benchmarks, one epoch, compiled by itself.
    world = workload.world(workload.config(4, devices=1, items=60, history_length=6, dim=16))
    start = world.private(world.initial_state())
    learner = client.learner(world)
    views = jax.ShapeDtypeStruct((6 * 5, 3, 16), "float32")
    private = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), start)
    step = jax.jit(lambda private, rows: learner.step(private, rows, 6))
    counted = step.lower(private, views).compile().cost_analysis()["flops"]
    epochs = world.config.method.local_epochs
    assert roofline.needs(world.config).flops / epochs == pytest.approx(counted, rel=0.35)


def test_state_bytes_are_those_of_the_model():
    config = workload.config(4, devices=1, items=60, history_length=6, dim=16)
    world = workload.world(config)
    numbers = world.simulation.federation.training.model.private_numbers()
    assert roofline.needs(config).memory_bytes == 2 * 4 * numbers


def test_peaks_are_measured():
    found = roofline.peaks(make_mesh(1))
    assert set(found) == {"flops", "cache", "memory"}
    assert all(value > 1e8 for value in found.values())
