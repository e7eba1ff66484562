"""Programs of earlier starts are found where nothing that decides them has changed, else made."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from fedvlr_jax import backbones, compilation, names, record
from fedvlr_jax.reporter import Silent
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import kept, programs, run
from fedvlr_jax.simulation.off_device import programs as in_waves
from tests import worlds

SETTINGS = {"variant": "id", "dim": 4}


@pytest.fixture(autouse=True)
def _without_types(monkeypatch):
    """The package's functions as a user has them, without what checks their types in tests."""
    described = kept._described

    def plain(x):
        return described(inspect.unwrap(x) if inspect.isfunction(x) else x)

    monkeypatch.setattr(kept, "_described", plain)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "_folder", tmp_path)
    return tmp_path


def settings_of(**settings):
    """As at another start: nothing that this process remembers is the same."""
    aggregate.create.cache_clear()
    simulation = worlds.simulation(**(SETTINGS | settings))
    return programs.settings_of(simulation, simulation.state_shapes())


def path_of(lower=programs.lowered, **settings):
    return kept._path(settings_of(**settings), lower)


def lowered(x):
    """Programs of a module of somebody else's: the tests'."""
    raise NotImplementedError


@pytest.mark.parametrize("devices", [1, 2])
def test_a_kept_program_is_the_same(folder, devices):
    simulation, settings = (
        worlds.simulation(**SETTINGS, devices=devices),
        settings_of(devices=devices),
    )
    programs.compiled.cache_clear()
    first = programs.compiled(settings)
    assert len(list(folder.iterdir())) == 1
    read = kept.compiled(settings, settings.federation.mesh, programs.lowered)
    assert read.keys() == {"round", "ranks", "rankings"}
    after = []
    for program in (first["round"], read["round"]):
        state = simulation.initial_state(0)
        with jax.transfer_guard("disallow"):
            after.append(
                program(state, simulation.population, simulation.features, simulation.rates)
            )
        assert state.private.is_deleted(), "donated"
    for a, b in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.sharding == b.sharding


@pytest.mark.parametrize(
    ("place", "seeds"), [("host", (0,)), ("device", (0, 1))], ids=["in waves", "together"]
)
def test_a_run_of_kept_programs_is_the_same(folder, monkeypatch, tmp_path_factory, place, seeds):
    configs = [worlds.config(**SETTINGS, private_state=place, seed=seed) for seed in seeds]
    data, found = worlds.dataset(), []
    for _ in range(2):
        programs.compiled.cache_clear()
        outs = [tmp_path_factory.mktemp("run") / str(seed) for seed in seeds]
        silent = [Silent() for _ in seeds]
        results = run.train_together(configs, outs, silent, [data] * len(seeds))
        lines = [line for r in results for line in record.evaluations(r.out)]
        losses = [line["train_loss"] for line in lines]
        found.append((losses, [r.summary["test"] for r in results]))
        assert len(list(folder.iterdir())) == 1
        monkeypatch.setattr(jax.stages.Lowered, "compile", None)
    assert found[0] == found[1]


def test_kept_programs_are_not_lowered(folder, monkeypatch):
    made = {"double": jax.jit(lambda x: 2 * x).lower(jnp.ones(3))}
    monkeypatch.setattr(kept, "_path", lambda *_: folder / "programs-0-cache")
    calls, mesh = [], jax.make_mesh((1,), ("one",), devices=jax.devices()[:1])

    def lower(settings):
        calls.append(settings)
        return made

    for _ in range(2):
        found = kept.compiled(None, mesh, lower)
        np.testing.assert_array_equal(found["double"](jnp.ones(3)), 2 * np.ones(3))
    assert calls == [None]
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1] + b"x", b"x" + whole[1:]):
        file.write_bytes(damaged)
        found = kept.compiled(None, mesh, lower)
        np.testing.assert_array_equal(found["double"](jnp.ones(3)), 2 * np.ones(3))
        assert file.read_bytes()[:32] != damaged[:32] or file.read_bytes() != damaged, "healed"
    assert len(calls) == 5


@pytest.fixture
def cache(tmp_path):
    """JAX's own cache, in a folder of its own."""
    told = {
        "jax_compilation_cache_dir": str(tmp_path / "of-jax"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in told}
    for values in (told, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is told:
            yield tmp_path / "of-jax"


def test_what_jax_has_kept_is_compiled_anew(folder, monkeypatch, cache):
    def lower(_):
        jax.clear_caches()
        work = jax.jit(lambda x: jnp.sort(jnp.tanh(x @ x.T), axis=0).sum(1))
        return {"work": work.lower(jnp.ones((9, 9)))}

    expected = lower(None)["work"].compile()(jnp.ones((9, 9)))
    before = sorted(cache.iterdir())
    assert any("jit" in path.name for path in before)
    monkeypatch.setattr(kept, "_path", lambda *_: folder / "programs-0-cache")
    mesh = jax.make_mesh((1,), ("one",), devices=jax.devices()[:1])
    for _ in range(2):
        found = kept.compiled(None, mesh, lower)
        np.testing.assert_array_equal(found["work"](jnp.ones((9, 9))), expected)
    assert jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize("backbone", names.BACKBONES)
@pytest.mark.usefixtures("folder")
def test_programs_of_every_backbone_are_found_again(backbone):
    first = path_of(backbone=backbone, server_optimizer="yogi")
    assert first is not None
    assert path_of(backbone=backbone, server_optimizer="yogi") == first


@pytest.mark.usefixtures("folder")
def test_programs_of_other_settings_are_not_found(monkeypatch):
    found = [
        path_of(**change)
        for change in (
            {},
            {"precision": "high"},
            {"dim": 8},
            {"backbone": "fcf"},
            {"client_optimizer": "adam"},
            {"server_optimizer": "lion"},
            {"clip_norm": 1.0},
            {"devices": 2},
        )
    ]
    found.append(path_of(in_waves.lowered))
    with monkeypatch.context() as patched:
        patched.setattr(kept, "_source", lambda: "edited")
        found.append(path_of())
    with monkeypatch.context() as patched:
        patched.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        found.append(path_of())
    with jax.threefry_partitionable(False):
        found.append(path_of())
    with jax.default_matmul_precision("bfloat16"):
        found.append(path_of())
    assert None not in found
    assert len(set(found)) == len(found)
    assert path_of() == found[0]


@pytest.mark.usefixtures("folder")
def test_what_changes_nothing_is_no_difference():
    settings = settings_of(server_lr=0.1, rounds=4, seed=0)
    other = settings_of(server_lr=0.2, rounds=8, seed=3)
    told = dataclasses.replace(other, before=lambda: None)
    assert kept._path(settings, programs.lowered) == kept._path(told, programs.lowered)


@pytest.mark.usefixtures("folder")
def test_programs_of_somebody_elses_code_are_not_kept():
    assert kept._path(settings_of(), lowered) is None
    settings = settings_of()
    backbone = dataclasses.replace(backbones.get("fcf"), score=lambda *x: x[-1].sum(-1))
    server = settings.federation.server._replace(backbone=backbone)
    federation = dataclasses.replace(settings.federation, server=server)
    other = dataclasses.replace(settings, federation=federation)
    assert kept._path(other, programs.lowered) is None


def test_functions_that_hold_other_numbers_differ():
    texts = [kept._described(optax.sgd(rate, momentum)) for rate in (1, 2) for momentum in (0, 0.9)]
    assert len(set(texts)) == 4
    assert kept._described(optax.sgd(1, 0)) == texts[0]


def test_nothing_is_kept_unless_asked_for(monkeypatch):
    monkeypatch.setattr(compilation, "_folder", None)
    assert path_of() is None
