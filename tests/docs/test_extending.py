"""docs/extending.md: its plugins from the command line, its operator, aggregation and source alone.

Its backbone by itself is in tests/backbones/test_sixth.py, and all of the page in a copy of the
project here.
"""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedvlr_jax
from experiments import train
from fedvlr_jax import record
from fedvlr_jax.errors import UserError
from fedvlr_jax.fusion import operators
from fedvlr_jax.fusion.operators import Features, Fusion
from fedvlr_jax.registry import AGGREGATIONS
from fedvlr_jax.simulation.federated_round import sent_by, train_cohort
from fedvlr_jax.simulation.private import Private
from tests import worlds
from tests.docs.pages import DOCS, ROOT, blocks, in_shell
from tests.experiments import programs
from tests.simulation.test_federated_round import moved
from tests.undone import undone

PAGE = DOCS / "extending.md"
PLUGINS = ("fedmf.py", "lowrank.py", "clipped.py")
CALLBACK = "a callback"
FILES = (*PLUGINS, "fedvlr_jax/data/raw/mind.py")


def code(path):
    (found,) = [
        block
        for block, file in zip(blocks(PAGE, "python"), (*PLUGINS, CALLBACK, FILES[-1]), strict=True)
        if file == path
    ]
    return found.text


def executed(path):
    names = {"__name__": "documented"}
    with undone():
        exec(compile(code(path), str(PAGE), "exec"), names)
    return names


def edited(text, hunk):
    """The text with what a hunk of a diff takes away replaced by what it puts there."""
    old = "".join(f"{line[1:]}\n" for line in hunk if line[0] in " -")
    new = "".join(f"{line[1:]}\n" for line in hunk if line[0] in " +")
    assert text.count(old) == 1, f"docs/extending.md says that this stands once: {old}"
    return text.replace(old, new)


def extend(root):
    """Put the files of the page into a copy of the project, and make the edits it shows."""
    for path in FILES:
        assert f"`{path}`" in PAGE.read_text()
        (root / path).write_text(code(path))
    for block in blocks(PAGE, "diff"):
        for part in re.split(r"^diff ", block.text, flags=re.M)[1:]:
            path, *lines = part.splitlines()
            text = (root / path).read_text()
            for hunk in "\n".join(lines).split("\n@@\n"):
                text = edited(text, hunk.splitlines())
            (root / path).write_text(text)


def samples(folder):
    """Run the lines of the page that write a few lines in MIND's format."""
    (script,) = [block.text for block in blocks(PAGE, "sh") if "<<'END'" in block.text]
    in_shell(script[: script.index("\nEND\n") + 5], folder)
    return folder / "raw" / "mind"


@pytest.mark.parametrize("present", [("image", "text"), ("text",), ()])
def test_the_documented_operator_follows_its_formula(present):
    operator = executed("lowrank.py")["LowRank"]
    view = operators.View("lowrank", operator)
    rng = np.random.default_rng(0)
    rows = {name: jnp.asarray(rng.standard_normal((9, 7)), jnp.float32) for name in present}
    fusion = Fusion((view,), 9, 6)
    given = Features(rows.get("image"), rows.get("text"))
    params = fusion.init(jax.random.key(0), given)["params"]
    fused = fusion.apply({"params": params}, given)
    assert fused.shape == (9, 1, 6)

    product = 1
    for name in (*present, "id"):
        x = rows.get(name, params[operators.EMBEDDING]) @ params[name]["map"]["kernel"]
        x = layer_norm(x) @ params["view_lowrank"][f"map_{name}"]["kernel"]
        product = product * x.reshape(9, 4, 6)
    np.testing.assert_allclose(fused[:, 0], layer_norm(product.sum(axis=1)), atol=1e-5)


def test_the_documented_plugins_train_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in PLUGINS:
        (tmp_path / f"page_{path}").write_text(code(path))
    small = ("--clients=30", "--items=40", "--dim=8", "--local_epochs=2", "--rounds=1")
    small += ("--devices=1", "--buckets=1", "--quiet")
    own = ("--backbone=fedmf", "--views=lowrank,id", "--aggregation=clipped", "--out=run")
    named = "--plugins=page_fedmf,./page_lowrank.py,page_clipped"
    with undone():
        exit_code, _, complaint = programs.in_process(train, capsys, named, *own, *small)
    assert (exit_code, complaint) == (0, "")
    assert record.per_user(tmp_path / "run", ("views",))["views"].tolist() == ["lowrank", "id"]


@pytest.mark.parametrize(
    "settings",
    [{"scoring": "sparse"}, {"scoring": "dense"}, {"backbone": "fedncf"}, {"client_mode": "local"}],
    ids=str,
)
def test_the_documented_aggregation_clips_every_client(settings, monkeypatch):
    """Against clients that upload alone, one after the other, clipped and averaged here."""
    names = executed("clipped.py")
    aggregation = fedvlr_jax.Aggregation("clipped", names["clip"])
    monkeypatch.setitem(AGGREGATIONS, "clipped", aggregation)
    settings = {"views": "image,id", **settings}
    plain, clipped = (
        worlds.simulation(**settings, aggregation=name, devices=3) for name in ("mean", "clipped")
    )
    state = moved(plain)
    everybody = plain.population.client >= 0
    alone = totals(plain, state)
    ones = [alone(plain.population.client == client) for client in range(plain.n_clients)]
    weights = [float(one.weight) for one in ones]
    largest, cut = names["LARGEST"], 0

    def mean(*gradients):
        nonlocal cut
        each = [np.asarray(g) / w for g, w in zip(gradients, weights, strict=True)]
        cut += sum((np.abs(g) > largest).mean() for g in each)
        return np.average([g.clip(-largest, largest) for g in each], axis=0, weights=weights)

    found = totals(clipped, state)(everybody)
    assert float(found.weight) == sum(weights)
    for part in ("gradient", "shared"):
        expected = jax.tree.map(mean, *(getattr(one, part) for one in ones))
        got = jax.tree.map(lambda x: np.asarray(x) / sum(weights), getattr(found, part))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), got, expected)
    assert cut > 0.1, "clipping nothing would prove nothing"


def totals(simulation, state):
    """A function: who takes part -> the sum of their uploads."""
    federation, features = simulation.federation, simulation.features
    population = simulation.population
    sent = jax.jit(lambda s: sent_by(federation, s, features, simulation.rates))(state)

    @jax.jit
    def summed(taking_part):
        _, totals, _ = train_cohort(
            federation,
            sent,
            Private(state.private),
            population,
            taking_part,
            simulation.rates,
            state.key,
        )
        return jax.tree.map(lambda x: x[0], totals)

    return summed


def layer_norm(x):
    """With initial scale and bias."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-6)


def test_the_documented_source_is_read(tmp_path):
    raw = samples(tmp_path)
    read = executed("fedvlr_jax/data/raw/mind.py")["read"]
    found = read(raw)
    assert len(found.log.user) == 60
    assert len(found.log.users) == 10
    assert np.bincount(found.log.user).tolist() == [6] * 10
    assert (np.diff(found.log.time) == 60).all()
    assert found.titles["N3"] == "Golfer 3 wins"
    assert {path.name for path in found.files} == {"behaviors.tsv", "news.tsv"}

    lines = (raw / "behaviors.tsv").read_text().splitlines()
    for number, (old, new, words) in enumerate(
        (("AM", "noon", "the time is"), ("\t", ",", "1 cells"), ("U1", "U\x07", "the user is")), 1
    ):
        wrong = [*lines]
        wrong[1] = wrong[1].replace(old, new)
        folder = shutil.copytree(raw, tmp_path / str(number))
        (folder / "behaviors.tsv").write_text("\n".join(wrong) + "\n")
        with pytest.raises(UserError, match=f"behaviors.tsv, line 2: {words}"):
            read(folder)

    lines[1] = lines[1].replace("U1", "NULL")
    (raw / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    found = read(raw)
    assert len(found.log.user) == 59
    assert "line 2: the user is 'NULL'" in found.notes[0]


def test_the_edits_fit_the_project(tmp_path):
    copy(tmp_path)
    extend(tmp_path)


def copy(root):
    for name in ("fedvlr_jax", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)


@pytest.mark.slow
def test_an_extended_project_trains(tmp_path):
    copy(tmp_path)
    extend(tmp_path)
    script = "\n".join(block.text for block in blocks(PAGE, "sh"))
    in_shell(script, tmp_path, pythonpath=tmp_path)
    assert (tmp_path / "runs" / "beta1" / "report.html").is_file()
    assert "server_beta1" in (tmp_path / "runs" / "beta1" / "results.csv").read_text()
    for run in ("fedmf", "lowrank", "clipped", "mind"):
        assert (tmp_path / "runs" / run / "summary.json").is_file()
    assert "Golfer 3 wins" in (tmp_path / "data" / "mind" / "items.csv").read_text()


def test_the_callback_ends_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    executed(CALLBACK)
    assert capsys.readouterr().out.startswith("reached the target in round ")
    assert not (tmp_path / "runs" / "enough" / "summary.json").exists()
