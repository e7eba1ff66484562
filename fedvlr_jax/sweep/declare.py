"""What a sweep is: settings that all runs share, and axes of values that they differ in.

An axis is a line `name=values`, where values are a list (`100,1000`), or points from one number to
another, equally far apart (`lin:0:0.5:6`) or by equal factors (`log:1e-4:1e-1:4`). Settings that
are lists themselves part their values by `|` (`views=sum,mlp,gate|image,text`).
"""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedvlr_jax.config import LISTS, Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import setting_type

Axes = dict[str, tuple[Any, ...]]
_EXAMPLES = {str: "fedvlr,mlp", int: "100,1000", float: "0.01,0.1"}
_RANGES = ("lin", "log")
_FILE = "lines like 'rounds: 30' and 'sweep: {clients: [100, 1000]}'"


@dataclass(frozen=True)
class Declared:
    """What a file declares: settings of all runs, axes, and everything else by its name."""

    settings: dict[str, Any]
    axes: Axes
    others: dict[str, Any]


def axes(lines: Sequence[str]) -> Axes:
    """The axes that lines of the form `name=values` declare, in order.

    Raises:
        UserError: a line that is no axis of a known setting, or two of one setting.
    """
    found: Axes = {}
    for line in lines:
        name, equals, values = line.partition("=")
        _check_known(f"--sweep={line}", name)
        if not equals or not values:
            raise UserError(f"--sweep={line}: has no values, expected {_right(name)}")
        if name in found:
            raise UserError(
                f"--sweep={line}: {name} is swept twice, expected one line with all its values, "
                f"like {_right(name)}"
            )
        found[name] = _values(f"--sweep={line}", name, values)
    return found


def read(path: Path, others: Sequence[str] = ()) -> Declared:
    """What a YAML file declares.

    Args:
        path: a mapping of settings to values, and `sweep` to a mapping of settings to lists of
            values, or to a text like the values of an axis.
        others: names beside settings that may stand in the file.

    Raises:
        UserError: no such file, no YAML, an unknown name, or one that stands twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"--config={path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--config={path}: not readable as YAML ({reason}), expected {_FILE}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"--config={path}: holds no settings, expected {_FILE}")
    swept = content.pop("sweep", None) or {}
    if not isinstance(swept, dict):
        raise UserError(
            f"--config={path}: sweep is no mapping of settings to values, expected {_FILE}"
        )
    settings, rest = {}, {}
    for name, value in content.items():
        if name in others:
            rest[name] = value
        else:
            _check_known(f"--config={path}", str(name))
            settings[name] = ",".join(value) if name in LISTS and _is_names(value) else value
    found = {name: _listed(f"--config={path}: sweep", str(name), swept[name]) for name in swept}
    for name in found:
        if name in settings:
            raise UserError(f"--config={path}: {name} is set and swept, expected one of the two")
    return Declared(settings, found, rest)


def configs(settings: Mapping[str, Any], axes: Axes) -> list[Config]:
    """The configuration of every run: all combinations, the last axis changes fastest.

    Raises:
        UserError: a bad setting, or one that is set and swept.
    """
    for name in axes:
        if name in settings:
            raise UserError(
                f"--{name}={settings[name]}: {name} is swept as well, expected one of the two"
            )
    return [
        Config.of(**settings | dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def run_name(config: Config, axes: Axes) -> str:
    """The name of a run's folder, unique within a sweep: what it differs in."""
    flat = config.flat()
    parts = [f"{name}={_short(flat[name])}" for name in axes]
    return ",".join(parts) or "run"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(",", "+").replace("/", "_")


class _Loader(yaml.SafeLoader):
    """YAML in which no name may stand twice, and 1e-3 is a number, as in Python."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    names = [loader.construct_object(name) for name, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"{name} stands twice", node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _check_known(where: str, name: str) -> None:
    known = list(leaves())
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1) or ["server_lr"]
        raise UserError(
            f"{where}: unknown setting {name or '(none)'}, expected one of --help, like "
            f"{_right(close[0])}"
        )


def _right(name: str) -> str:
    """A line that would do for a setting."""
    leaf = leaves()[name]
    if name in LISTS:
        return f"--sweep={name}={','.join(LISTS[name][:2])}|{LISTS[name][0]}"
    _, expected = leaf.metadata["check"]
    if expected.startswith("one of "):
        return f"--sweep={name}={','.join(expected.removeprefix('one of ').split(', ')[:2])}"
    return f"--sweep={name}={_EXAMPLES[setting_type(leaf)]}"


def _listed(where: str, name: str, values: Any) -> tuple[Any, ...]:
    """The values of an axis in a file."""
    _check_known(where, name)
    if isinstance(values, str):
        return _values(f"{where}: {name}", name, values)
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {name} has no list of values, expected one, as in {_FILE}")
    found = [",".join(v) if name in LISTS and _is_names(v) else _converted(name, v) for v in values]
    return _distinct(f"{where}: {name}", name, found)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def _converted(name: str, value: Any) -> Any:
    """YAML takes 1e-3 for text."""
    if isinstance(value, str) and setting_type(leaves()[name]) is float:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _values(where: str, name: str, text: str) -> tuple[Any, ...]:
    kind = setting_type(leaves()[name])
    scale = text.partition(":")[0]
    if kind is not str and scale in _RANGES:
        return _points(where, name, kind, text)
    parts = text.split("|" if name in LISTS else ",")
    try:
        found = [kind(part) for part in parts]
    except ValueError:
        number = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{where}: expected {number}, like {_right(name)}") from None
    if "" in parts:
        raise UserError(f"{where}: a value is empty, expected a line like {_right(name)}")
    return _distinct(where, name, found)


def _points(where: str, name: str, kind: type, text: str) -> tuple[Any, ...]:
    """The points of `scale:first:last:number`."""
    scale, *parts = text.split(":")
    right = f"--sweep={name}={scale}:" + ("100:10000:3" if kind is int else "1e-4:1e-1:4")
    try:
        first, last, number = float(parts[0]), float(parts[1]), int(parts[2])
    except (IndexError, ValueError):
        number = 0
    if len(parts) != 3 or number < 2 or not all(map(math.isfinite, (first, last))):
        raise UserError(
            f"{where}: expected {scale}:first:last:number with at least 2 points, like {right}"
        )
    if first > last:
        forwards = f"--sweep={name}={scale}:{parts[1]}:{parts[0]}:{number}"
        raise UserError(f"{where}: goes backwards, expected {forwards}")
    if first == last:
        raise UserError(
            f"{where}: goes nowhere, expected a first point below the last, like {right}"
        )
    if scale == "log" and first <= 0:
        raise UserError(f"{where}: expected numbers above 0 on a log scale, like {right}")
    space = np.geomspace if scale == "log" else np.linspace
    points = [float(f"{x:.6g}") for x in space(first, last, number)]
    if kind is int:
        points = [round(x) for x in points]
    return _distinct(where, name, points)


def _distinct(where: str, name: str, values: list) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise UserError(f"{where}: a value is named twice, expected each once, like {_right(name)}")
    return tuple(values)
