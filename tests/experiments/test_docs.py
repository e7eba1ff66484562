"""The commands that README and docs show, against the flags that there are."""

import importlib
import re
import shlex

import pytest
from absl import flags

from experiments import cli
from fedvlr_jax.prepare import options as preparing
from tests.experiments.programs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(path):
    """(module, arguments) of every command in the blocks of shell lines of a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [re.sub(r"^fedvlr ", "python -m experiments.", line) for line in lines]
    found = [
        re.search(r"python -m ((?:experiments|benchmarks)\.[\w-]+)(.*)", line) for line in lines
    ]
    return [(m[1].replace("-", "_"), shlex.split(m[2], comments=True)) for m in found if m]


def parsed(module, arguments):
    values = flags.FlagValues()
    importlib.import_module(module).define_flags(values)
    _, *rest = values([module, *arguments])
    assert len(rest) == (2 if module == "experiments.compare" else 0)
    return values


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_flag_exists(path):
    for module, arguments in commands(path):
        # What a shell would fill in becomes a number.
        parsed(module, [re.sub(r"\$\w+", "1", argument) for argument in arguments])


def test_the_papers_data_sets_are_prepared_and_then_read():
    found = commands(ROOT / "docs" / "datasets.md")
    made = {"data/KU"}
    for module, arguments in found:
        values = parsed(module, arguments)
        if module == "experiments.prepare":
            settings = cli.given_settings(values, preparing.leaves())
            assert preparing.PrepareConfig.of(**settings).min_item_interactions == 5
            made.add(str(values.out))
        else:
            assert values.data in made
            assert str(values.out) == f"runs/paper-{values.data.removeprefix('data/')}"
    studied = [values for module, values in found if module == "experiments.paper"]
    assert len(studied) == 7
