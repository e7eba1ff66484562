"""What a sweep is: settings that all runs share, and axes of values that they differ in.

An axis is a line `name=values` (notation.py), where values are a list (`100,1000`), or points from
one number to another, equally far apart (`lin:0:0.5:6`) or by equal factors (`log:1e-4:1e-1:4`).
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedvlr_jax.config import LISTS, Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import setting_type
from fedvlr_jax.sweep import notation
from fedvlr_jax.sweep.notation import Notation

Axes = dict[str, tuple[Any, ...]]
SWEEP = Notation("sweep", "swept")
_LONGEST_NAME = 200  # characters of a run's name; a file system takes 255
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

    Example:
        >>> axes(["variant=fedvlr,mlp", "server_lr=log:1e-4:1e-1:4"])
        {'variant': ('fedvlr', 'mlp'), 'server_lr': (0.0001, 0.001, 0.01, 0.1)}
        >>> axes(["views=sum,mlp,gate|image,text"])
        {'views': ('sum,mlp,gate', 'image,text')}
    """
    return {
        name: _values(SWEEP.where(f"{name}={text}"), name, text)
        for name, text in SWEEP.split(lines).items()
    }


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
            SWEEP.check_known(f"--config={path}", str(name))
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
    SWEEP.refuse_set(settings, list(axes))
    return [
        Config.of(**settings | dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def run_name(config: Config, names: Iterable[str]) -> str:
    """The name of a run's folder, unique within a sweep: what it differs in.

    Args:
        config: of the run.
        names: settings that runs differ in.
    """
    flat = config.flat()
    name = ",".join(f"{name}={_short(flat[name])}" for name in names) or "run"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, float) and float(text) != value:
        text = str(value)  # with all its digits
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


def _listed(where: str, name: str, values: Any) -> tuple[Any, ...]:
    """The values of an axis in a file."""
    SWEEP.check_known(where, name)
    if isinstance(values, str):
        return _values(f"{where}: {name}", name, values)
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {name} has no list of values, expected one, as in {_FILE}")
    found = [",".join(v) if name in LISTS and _is_names(v) else _converted(name, v) for v in values]
    return SWEEP.distinct(f"{where}: {name}", name, found)


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
    if notation.scale_of(name, text):
        return _points(where, name, text)
    return SWEEP.listed(where, name, text)


def _points(where: str, name: str, text: str) -> tuple[Any, ...]:
    """The points of `scale:first:last:number`."""
    whole = setting_type(leaves()[name]) is int
    scale, *parts = text.split(":")
    right = SWEEP.where(f"{name}={scale}:" + ("100:10000:3" if whole else "1e-4:1e-1:4"))
    try:
        first, last = notation.finite(parts[:2])
        number = int(parts[2])
    except (IndexError, ValueError):
        number = 0
    if len(parts) != 3 or number < 2:
        raise UserError(
            f"{where}: expected {scale}:first:last:number with at least 2 points, like {right}"
        )
    forwards = SWEEP.where(f"{name}={scale}:{parts[1]}:{parts[0]}:{number}")
    notation.check_ends(where, scale, (first, last), right, forwards)
    space = np.geomspace if scale == "log" else np.linspace
    points = [float(f"{x:.6g}") for x in space(first, last, number)]
    if whole:
        points = [round(x) for x in points]
    return SWEEP.distinct(where, name, points)
