"""The command `fedvlr`, which starts every program by its name."""

import importlib
import sys
import tomllib

import pytest

from docs.tools.flags import PROGRAMS
from experiments import __main__ as command
from tests.experiments import programs


def of(capsys, monkeypatch, *arguments):
    """(exit code, stdout, stderr) of the command, where it starts no program."""
    monkeypatch.setattr("sys.argv", ["fedvlr", *arguments])
    code = 0
    try:
        command.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_program_in_a_line(arguments, capsys, monkeypatch):
    code, said, told = of(capsys, monkeypatch, *arguments)
    assert (code, told) == (0, "")
    listed = [line.split(maxsplit=1) for line in said.splitlines() if line.startswith("  ")]
    names = [f"experiments.{name.replace('-', '_')}" for name, _ in listed]
    assert sorted(names) == sorted(name for name in PROGRAMS if name.startswith("experiments."))
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "like"), [(["trian", "--rounds=3"], ", like train"), (["x", "--help"], "")]
)
def test_an_unknown_command_is_told(arguments, like, capsys, monkeypatch):
    sentence = f"{arguments[0]}: unknown command, expected one that `fedvlr --help` lists{like}"
    assert of(capsys, monkeypatch, *arguments) == (2, "", f"error: {sentence}\n")


def test_a_flag_instead_of_a_command_is_told(capsys, monkeypatch):
    code, said, told = of(capsys, monkeypatch, "--rounds=3", "train")
    assert (code, said) == (2, "")
    assert told == "error: --rounds: unknown flag, expected one that --help names\n"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("preference-recovery", ["--seeds=0"]),
        ("preference_recovery", ["--help"]),
    ],
)
def test_it_does_what_the_program_does(name, arguments, capsys, monkeypatch):
    module = f"experiments.{name.replace('-', '_')}"
    expected = programs.in_process(importlib.import_module(module), capsys, *arguments)
    assert expected[1] or expected[2]
    monkeypatch.delitem(sys.modules, module)  # as at a start
    assert of(capsys, monkeypatch, name, *arguments) == expected


def test_it_is_a_program():
    done = programs.run("experiments", "compare", "runs/none")
    expected = "error: RUN_B is missing, expected RUN_A RUN_B\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_what_is_installed_is_this_command():
    project = tomllib.loads((programs.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = project["project"]["scripts"]["fedvlr"].partition(":")
    assert getattr(importlib.import_module(module), function) is command.main
    assert "experiments*" in project["tool"]["setuptools"]["packages"]["find"]["include"]
