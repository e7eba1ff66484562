"""Write docs/flags.md from the flags that the programs define: python -m docs.tools.flags"""

import dataclasses
import importlib
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from absl import flags

from fedvlr_jax import config

PAGE = Path(__file__).parents[1] / "flags.md"
PROGRAMS = (
    "experiments.train",
    "experiments.sweep",
    "experiments.scaling_study",
    "experiments.search",
    "experiments.compare",
    "experiments.paper",
    "experiments.preference_recovery",
    "experiments.prepare",
    "experiments.recommend",
    "benchmarks.throughput",
    "benchmarks.scaling",
    "benchmarks.roofline",
    "benchmarks.accelerators",
    "benchmarks.clocks",
)
_HEAD = """\
# Flags

<!-- Made by python -m docs.tools.flags; do not edit. -->

This page has every flag of every program, made from their definitions. `--help` of a program
prints its own flags. After `pip install .` in a checkout, `fedvlr train` is short for
`python -m experiments.train`, and likewise for every program of `experiments`. `fedvlr --help`
lists the programs.

- Give a flag once: `--rounds=20` or `--rounds 20`. Only `--sweep` and `--search` may be repeated.
- A flag whose value is yes or no is given as `--dry_run` or `--nodry_run`.
- In Python, a setting has the name of its flag: `fedvlr_jax.Config.of(rounds=20)`.
- A path is written in UTF-8. `~` at its beginning is your home folder.
"""
_SETTINGS = """\
These are the settings of `fedvlr_jax.Config`. `experiments.train` has all of them. If another
program leaves out a setting or has another default, [its section](#programs) says so. If the column
of defaults is empty, the text describes the default.
"""
_KINDS = {"string": "text", "int": "whole number", "float": "number", "bool": "yes or no"}
_KINDS |= {"multi string": "text, repeatable"}
# What absl adds to the help of a flag that may stand more than once.
_REPEATED = "; repeat this option to specify a list of values"


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "## Settings\n", _SETTINGS]
    modules = [importlib.import_module(name) for name in PROGRAMS]
    trained = _flags(modules[0])
    for group in dataclasses.fields(config.Config):
        leaves = [leaf.name for leaf in dataclasses.fields(group.type)]
        parts += [f"### {group.name.capitalize()}\n", f"{group.type.__doc__}\n"]
        parts.append(_table(trained[name] for name in leaves))
    parts.append("## Programs\n")
    for module in modules:
        parts += _program(module, trained)
    return "\n".join(parts)


def _program(module: ModuleType, trained: Mapping[str, flags.Flag]) -> list[str]:
    """A program's usage, what of the settings it takes, and its own flags."""
    found = _flags(module)
    shared = [
        name for name in config.leaves() if name in found and found[name].help == trained[name].help
    ]
    own = [flag for name, flag in found.items() if name not in shared]
    parts = [f"### {module.__name__}\n"]
    parts.append(f"```text\n{textwrap.dedent(module.USAGE).strip()}\n```\n")
    if shared:
        parts.append(_taken(found, trained, shared))
    if own:
        parts.append(_table(own))
    return parts


def _taken(
    found: Mapping[str, flags.Flag], trained: Mapping[str, flags.Flag], shared: list[str]
) -> str:
    """A paragraph about the settings that a program takes."""
    left_out = [name for name in config.leaves() if name not in shared]
    changed = [
        f"`--{name}={found[name].default}`"
        for name in shared
        if found[name].default != trained[name].default
    ]
    text = "Takes all [settings](#settings)"
    if len(left_out) > len(shared):
        text = f"Of the [settings](#settings) it takes {_listed(f'`--{n}`' for n in shared)}"
    elif left_out:
        text += f" but {_listed(f'`--{name}`' for name in left_out)}"
    if changed:
        many = len(changed) > 1
        text += f"; its own default{'s are' if many else ' is'} {_listed(changed)}"
    return "\n".join(textwrap.wrap(f"{text}.", 118, break_on_hyphens=False)) + "\n"


def _table(rows: Iterable[flags.Flag]) -> str:
    lines = ["| flag | value | default | meaning |", "| --- | --- | --- | --- |"]
    for flag in rows:
        kind = _KINDS[flag.flag_type()]
        default = "" if flag.default in (None, "", []) else f"`{_text(flag.default)}`"
        lines.append(f"| `--{flag.name}` | {kind} | {default} | {_escaped(flag.help)} |")
    return "\n".join(lines) + "\n"


def _flags(module: ModuleType) -> dict[str, flags.Flag]:
    """The program's flags by name, in the order of their definition."""
    values = flags.FlagValues()
    module.define_flags(values)
    return {name: values[name] for name in values}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _escaped(text: str) -> str:
    """Help text as one cell of a table."""
    line = " ".join(text.split()).removesuffix(_REPEATED)
    line = re.sub(r"([*|<>\[\]])", r"\\\1", line)
    return re.sub(r"(?<![\w`])(--\w+(?:=[\w=]+(?:\.{3})?)?)", r"`\1`", line)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")
