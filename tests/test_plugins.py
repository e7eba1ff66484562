"""Plugins: what is imported and registered, what is refused, and runs that are made with them."""

import functools
import inspect
import json
import re
import sys

import jax
import numpy as np
import optax
import pytest
import yaml

import fedvlr_jax
from experiments import recommend, sweep, train
from fedvlr_jax import compilation, plugins, record
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.registry import AGGREGATIONS, BACKBONES, VIEWS
from fedvlr_jax.report import compare_page
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation import kept
from fedvlr_jax.simulation import programs as compiled
from tests import worlds
from tests.experiments import programs
from tests.undone import undone

HALVED = """
import dataclasses
import jax
import fedvlr_jax
from fedvlr_jax import backbones

def halve(gradient):
    return jax.tree.map(lambda x: 0.5 * x, gradient)

fedvlr_jax.register_aggregation(fedvlr_jax.Aggregation("halved", halve))
mine = dataclasses.replace(backbones.get("fcf"), name="mine", linear=None)
fedvlr_jax.register_backbone(mine)
"""
SMALL = {"clients": 30, "items": 40, "dim": 4, "local_epochs": 1, "eval_every": 1}
SMALL |= {"buckets": 1, "devices": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which plugins are."""
    folder = tmp_path / "fedvlr_plugins"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # Files that are written twice in a second look alike to Python's own cache.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with undone():
        yield folder


def refusal(**settings):
    with pytest.raises(UserError) as caught:
        Config.of(**settings)
    return str(caught.value)


def test_flags_take_what_plugins_register(folder):
    (folder / "halved.py").write_text(HALVED)
    (folder / "views.py").write_text(
        "import fedvlr_jax\n"
        "from fedvlr_jax.fusion.operators import Sum\n"
        "fedvlr_jax.register_view(fedvlr_jax.View('pictures', Sum, ('image',), 'image'))\n"
        "fedvlr_jax.register_view(fedvlr_jax.View('mixed', Sum, mixes=True))\n"
    )
    assert refusal(backbone="mine").startswith("--backbone=mine: expected one of fedavg")
    settings = {"plugins": "halved,views.py", "backbone": "mine", "aggregation": "halved"}
    config = Config.of(**settings, views="pictures,id")
    assert config.method.plugins == ("halved", "views.py")
    assert config.flat()["plugins"] == "halved,views.py"
    assert Config.of(**config.flat()) == config
    assert "fedrap, mine" in refusal(backbone="yours")
    assert "the view pictures needs image" in refusal(modalities="text,id", views="pictures")
    assert "--views=mixed: mixes rows" in refusal(views="mixed", client_mode="local")
    assert Config.of(plugins=str(folder / "halved.py"), backbone="mine")
    digest = plugins.digest(["views.py", "halved"])
    assert re.fullmatch(r"halved \w{12}\+views \w{12}", digest)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ny = x / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
        ("import gone_by\n", "line 1: ModuleNotFoundError: No module named 'gone_by'"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        (
            "import fedvlr_jax\nfedvlr_jax.register_backbone(5)\n",
            "line 2: register_backbone: expected a fedvlr_jax.Backbone, found an int",
        ),
        (
            "import fedvlr_jax\nfedvlr_jax.register_view(fedvlr_jax.Aggregation('a'))\n",
            "line 2: register_view: expected a fedvlr_jax.View, found an Aggregation",
        ),
        (
            "import fedvlr_jax\nfedvlr_jax.register_aggregation(fedvlr_jax.Aggregation('a,b'))\n",
            "line 2: register_aggregation: the name is 'a,b', expected one like my_aggregation",
        ),
        (
            "import fedvlr_jax\nfedvlr_jax.register_aggregation(fedvlr_jax.Aggregation('mean'))\n",
            "line 2: register_aggregation: the name mean is taken by fedvlr_jax, expected another",
        ),
    ],
)
def test_what_a_plugin_raises_is_told_with_its_line(folder, text, sentence):
    file = folder / "wrong.py"
    file.write_text(text)
    for name in ("wrong", "wrong.py"):
        assert refusal(plugins=name) == f"--plugins={name}: {file}, {sentence}"
    assert not plugins._loaded


def test_a_configuration_of_another_process_brings_its_plugins(folder):
    (folder / "halved.py").write_text(HALVED)
    with undone():
        config = Config.of(**settings(rounds=1, plugins="./halved.py"))
    assert "mine" not in BACKBONES
    assert fedvlr_jax.train(config, folder / "run").summary["rounds_done"] == 1


def test_plugins_that_are_not_there(folder):
    assert refusal(plugins="nowhere").startswith(
        "--plugins=nowhere: there is no such module (No module named 'nowhere'), expected one that"
    )
    assert refusal(plugins="nowhere.py") == "--plugins=nowhere.py: there is no such file"
    assert refusal(plugins="") == "--plugins=: expected names of modules"
    assert refusal(plugins=[3]) == "--plugins=3: expected names of modules"
    assert refusal(plugins="a,a").startswith("--plugins=a,a: a name appears twice")
    (folder / "json.py").write_text("")
    assert "json.py: Python has another module json" in refusal(plugins="json.py")


def test_two_plugins_cannot_have_one_name(folder):
    (folder / "halved.py").write_text(HALVED)
    (folder / "again.py").write_text(HALVED)
    expected = "line 10: register_aggregation: the name halved is taken by halved, expected another"
    found = refusal(plugins="halved,again")
    assert found == f"--plugins=again: {folder / 'again.py'}, {expected}"


def test_a_plugin_that_failed_can_be_mended(folder):
    file = folder / "halved.py"
    file.write_text(f"{HALVED}\n1 / 0\n")
    assert "ZeroDivisionError" in refusal(plugins="halved")
    assert "halved" not in AGGREGATIONS
    assert "mine" not in BACKBONES
    (folder / "other.py").write_text(HALVED)
    assert Config.of(plugins="other", aggregation="halved")


def test_the_packages_own_are_all_registered():
    for group, registry in (
        (fedvlr_jax.config.names.BACKBONES, BACKBONES),
        (fedvlr_jax.config.names.VIEWS, VIEWS),
        (fedvlr_jax.config.names.AGGREGATIONS, AGGREGATIONS),
    ):
        assert tuple(registry) == group


def settings(**changed):
    own = {"plugins": "halved", "backbone": "mine", "aggregation": "halved", "variant": "id"}
    return SMALL | own | {"rounds": 2} | changed


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self):
        self.told = []

    def note(self, sentence):
        self.told.append(sentence)


def test_a_run_goes_on_and_tells_of_changed_code(folder):
    file = folder / "halved.py"
    file.write_text(HALVED)
    first, second = (Config.of(**settings(rounds=n)) for n in (1, 2))
    whole, notes = folder / "whole", Notes()
    fedvlr_jax.train(first, folder / "run")
    went_on = fedvlr_jax.train(second, folder / "run", notes)
    expected = fedvlr_jax.train(second, whole)
    assert went_on.summary["test"] == expected.summary["test"]
    assert not [note for note in notes.told if "with plugins" in note]
    stored = json.loads((whole / "config.json").read_text())
    assert (stored["plugins"], stored["aggregation"]) == ("halved", "halved")
    began = stored["jax"]["plugins"]
    assert began == plugins.digest(["halved"])

    # At the next start: the code has another digest, and stands at another place.
    with undone():
        del sys.modules["halved"], plugins._loaded["halved"]
        for registry in (AGGREGATIONS, BACKBONES):
            registry.remove("halved")
        moved = folder / "elsewhere" / "halved.py"
        moved.parent.mkdir()
        file.rename(moved)
        moved.write_text(HALVED.replace("0.5", "0.25"))
        longer = Config.of(**settings(rounds=3, plugins=str(moved)))
        fedvlr_jax.train(longer, whole, notes)
        (note,) = [note for note in notes.told if "with plugins" in note]
        assert f"began with plugins {began}, goes on with {plugins.digest(['halved'])}" in note
        stored = json.loads((whole / "config.json").read_text())
        assert stored["jax"]["plugins"] == f"{began}, {plugins.digest(['halved'])}"


def test_a_run_of_before_there_were_aggregations_goes_on(tmp_path):
    result = fedvlr_jax.train(Config.of(**SMALL, variant="id", rounds=1), tmp_path / "run")
    path = result.out / "config.json"
    stored = json.loads(path.read_text())
    del stored["aggregation"], stored["plugins"]
    path.write_text(json.dumps(stored))
    longer = fedvlr_jax.train(Config.of(**SMALL, variant="id", rounds=2), result.out)
    assert longer.summary["rounds_done"] == 2


def test_finished_runs_are_opened_without_or_with_their_plugins(folder, capsys):
    (folder / "halved.py").write_text(HALVED)
    with undone():
        fedvlr_jax.train(Config.of(**settings()), folder / "run")
    assert compare_page.held(folder / "run")[0].settings["backbone"] == "mine"
    assert "mine" not in BACKBONES
    code, said, _ = programs.in_process(recommend, capsys, "--run=run", "--user=0")
    assert code == 0
    assert "recommended:" in said


def test_a_moved_plugin_is_told_to_recommend(folder, capsys):
    (folder / "halved.py").write_text(HALVED)
    with undone():
        fedvlr_jax.train(Config.of(**settings()), folder / "run")
    (folder / "halved.py").rename(folder / "renamed.py")
    code, _, complaint = programs.in_process(recommend, capsys, "--run=run", "--user=0")
    assert (code, complaint[:54]) == (2, "error: --plugins=halved: there is no such module (No m")
    flags = ("--run=run", "--user=0", "--plugins=renamed.py")
    code, said, complaint = programs.in_process(recommend, capsys, *flags)
    assert (code, complaint) == (0, "")
    assert "recommended:" in said


def test_a_sweep_has_plugins_in_its_file_and_in_its_axes(folder, capsys):
    (folder / "halved.py").write_text(HALVED)
    told = {"sweep": {"aggregation": "mean,halved"}, "backbone": "mine", "plugins": "./halved.py"}
    text = yaml.safe_dump(told | SMALL | {"variant": "id"}, sort_keys=False)
    (folder / "sweep.yaml").write_text(text)
    flags = ("--config=sweep.yaml", "--rounds=1", "--out=out", "--quiet")
    code, _, complaint = programs.in_process(sweep, capsys, *flags)
    assert (code, complaint) == (0, "")
    for name in ("mean", "halved"):
        run = folder / "out" / "runs" / f"aggregation={name},seed=0"
        assert record.summary(run)["rounds_done"] == 1
        assert record.settings(run)["plugins"] == "./halved.py"
    page = (folder / "out" / "report.html").read_text()
    assert "--plugins=./halved.py" in page


def test_an_error_in_tracing_names_the_plugin(folder, capsys):
    text = HALVED.replace("lambda x: 0.5 * x", "lambda x: x @ missing")
    (folder / "halved.py").write_text(text)
    flags = [f"--{name}={value}" for name, value in settings().items()]
    code, _, complaint = programs.in_process(train, capsys, *flags, "--out=run", "--quiet")
    assert code == 1
    assert complaint.startswith(
        "error: NameError (name 'missing' is not defined): raised by a plugin "
        f"({folder / 'halved.py'}, line 8); see the file run/traceback.log, which has the traceback"
    )
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    "wrong", ["jax.tree.map(lambda x: x[:1], gradient)", "tuple(gradient)", "gradient[0]", "None"]
)
def test_an_aggregation_that_gives_something_else_is_refused(folder, wrong):
    right = "jax.tree.map(lambda x: 0.5 * x, gradient)"
    (folder / "halved.py").write_text(HALVED.replace(right, wrong))
    with pytest.raises(UserError, match=r"^--aggregation=halved: its function gives .*, expected"):
        fedvlr_jax.train(Config.of(**settings()), folder / "run")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder of kept programs; functions as a user has them, without checks of their types."""
    described = kept._described

    def plain(x):
        return described(inspect.unwrap(x) if inspect.isfunction(x) else x)

    monkeypatch.setattr(kept, "_described", plain)
    monkeypatch.setattr(compilation, "_folder", tmp_path)


def found(**changed):
    simulation = worlds.simulation(**{"variant": "id", "dim": 4} | changed)
    return compiled.settings_of(simulation, simulation.state_shapes())


@pytest.mark.usefixtures("cache")
def test_programs_with_code_of_a_plugin_are_never_kept(folder):
    (folder / "halved.py").write_text(
        HALVED + "from flax import linen as nn\n"
        "from fedvlr_jax.fusion.operators import Sum\n"
        "class Own(Sum):\n    pass\n"
        "fedvlr_jax.register_view(fedvlr_jax.View('own', Own))\n"
        "yours = dataclasses.replace(mine, name='yours', score=lambda *x: 0)\n"
        "fedvlr_jax.register_backbone(yours)\n"
    )
    plugins.load(["halved"])
    assert kept._path(found(), compiled.lowered) is not None
    assert kept._path(found(backbone="mine"), compiled.lowered) is not None, "all of the package's"
    for changed in (
        {"backbone": "yours"},
        {"aggregation": "halved"},
        {"variant": "fedvlr", "views": "own,id"},
    ):
        settings = found(**changed)
        assert kept._path(settings, compiled.lowered) is None, changed


def test_a_name_of_known_code_hides_no_foreign_code():
    with pytest.raises(kept._UnknownError):
        kept._described(functools.wraps(optax.sgd)(lambda *x: 2 * optax.sgd(*x)))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("side", ["of_client", "of_mean"])
def test_edited_code_is_another_program_in_the_same_process(side):
    """A notebook that registers again, by the same name."""
    after = []
    for factor in ("0.5", "0.25"):
        text = HALVED.replace("halve)", f"{side}=halve)").replace("0.5", factor)
        exec(text, {"__name__": "notebook"})
        simulation = worlds.simulation(aggregation="halved", variant="id", server_optimizer="sgd")
        state = simulation.initial_state(0)
        shapes = (state, simulation.population, simulation.features, simulation.rates)
        before = jax.device_get(state.server.params)
        state, _ = compiled.compiled(compiled.settings_of(simulation, state))["round"](*shapes)
        moved = jax.tree.map(np.subtract, jax.device_get(state.server.params), before)
        after.append(moved.fusion["params"]["item_embedding"])
    np.testing.assert_allclose(after[0], 2 * after[1], atol=1e-6)
    assert np.abs(after[0]).max() > 1e-3
