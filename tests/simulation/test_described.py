"""A simulation of devices that are only described has the shapes that one of real devices has."""

import jax
import pytest

from fedvlr_jax.simulation import mesh, programs
from fedvlr_jax.simulation.simulation import abstract, build
from tests import worlds


@pytest.mark.parametrize(
    "settings", [{"late": 0.3}, {"views": "graph,sum"}, {"variant": "vbpr", "cohort": 5}]
)
def test_shapes_are_those_of_arrays(settings, monkeypatch):
    config, data = worlds.config(**(settings | {"devices": 2})), worlds.dataset()
    real = build(config, data)
    state = real.initial_state(0)
    expected = programs.settings_of(real, state)
    monkeypatch.setattr(mesh, "described", lambda _: True)
    shapes = build(config, data, mesh=real.federation.mesh)
    assert all(
        isinstance(leaf, jax.ShapeDtypeStruct)
        for leaf in jax.tree.leaves((shapes.features, shapes.population, shapes.rates))
    )
    assert shapes.state_shapes() == abstract(state)
    assert programs.settings_of(shapes, shapes.state_shapes()) == expected


def test_devices_that_jax_has_are_not_only_described():
    assert not mesh.described(mesh.make_mesh(2))
