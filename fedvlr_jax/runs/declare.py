"""What a sweep is: settings that all runs share, and axes of values that they differ in.

An axis is a line `name=values` (notation.py), where values are a list (`100,1000`), or points from
one number to another, equally far apart (`lin:0:0.5:6`) or by equal factors (`log:1e-4:1e-1:4`).
"""

import hashlib
import itertools
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from fedvlr_jax import files
from fedvlr_jax.config import LISTS, Config, leaves, load_plugins
from fedvlr_jax.errors import UserError
from fedvlr_jax.runs import notation
from fedvlr_jax.runs.notation import Notation
from fedvlr_jax.settings import (
    FILE,
    MOST_RUNS,
    Check,
    UnfitError,
    argument,
    check_of,
    kind_of,
    parsed,
    setting_type,
)

Axes = dict[str, tuple[Any, ...]]
Kind = tuple[type, Check]  # whether a value is a str, a Path, an int or a float, and its range
SWEEP = Notation("sweep", "swept")
_LONGEST_NAME = 200  # bytes of a run's name; a file system takes 255
_FILE = "lines like 'rounds: 30' and 'sweep: {clients: [100, 1000]}'"
_LARGEST_FILE = 1 << 18  # bytes
_MOST_VALUES = 20_000  # in a file, those counted again that an alias repeats
_DEEPEST = 4  # a list of names, in a list of values, of an axis, in the file
_NO_SWEEP = "sweep is not a mapping of settings to values"
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Declared:
    """What a file declares.

    Attributes:
        settings: of all runs.
        axes: what runs differ in.
        others: everything else by its name.
        places: the file and line of every name, as sentences begin with them.
    """

    settings: dict[str, Any]
    axes: Axes
    others: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def placed(self, reason: UserError) -> UserError:
        """What is wrong with a setting, with its line if it comes from the file."""
        place = self.places.get(reason.setting or "")
        return UserError(f"{place}: {reason}") if place else reason


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


def read(path: str | Path, others: Mapping[str, Kind] | None = None) -> Declared:
    """What a YAML file declares.

    What a value is, its setting decides, as on a command line: `1e-3` is a number and `no` a text.

    Args:
        path: a mapping of settings to values, and `sweep` to a mapping of settings to lists of
            values, or to a text like the values of an axis.
        others: names beside settings that may stand in the file, and what values they take.

    Raises:
        UserError: no such file, no YAML, an unknown name, one that appears twice, or a value that
            its setting does not take.
    """
    path = argument("config", Path, FILE, path)
    where = f"--config={path}"
    settings: dict[str, Any] = {}
    found: Axes = {}
    rest: dict[str, Any] = {}
    places: dict[str, str] = {}
    entries = _entries(where, _tree(where, path), "holds no settings")
    # Plugins come first: they add to what others may be.
    for name, node in sorted(entries, key=lambda entry: entry[0] != "plugins"):
        here = places[name] = _line(where, node)
        if name == "sweep":
            swept = [] if _text(node) is None else _entries(where, node, _NO_SWEEP)
            for axis, values in swept:
                places[axis] = _line(where, values)
                found[axis] = _listed(f"{places[axis]}: sweep", axis, values)
        elif others and name in others:
            rest[name] = _parsed(f"{here}: {name}", *others[name], node)
        else:
            SWEEP.check_known(here, name, shown=str)
            settings[name] = _value(f"{here}: {name}", name, node)
        if name == "plugins" and settings[name] is not None:
            load_plugins(settings[name])
    for name in found:
        if name in settings:
            raise UserError(f"{places[name]}: {name} is set and swept, expected one of the two")
    return Declared(settings, found, rest, places)


def configs(settings: Mapping[str, Any], axes: Axes) -> list[Config]:
    """The configuration of every run: all combinations, the last axis changes fastest.

    Raises:
        UserError: a bad setting, one that is set and swept, or too many combinations.
    """
    SWEEP.refuse_set(settings, list(axes))
    for name, values in axes.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            shown = SWEEP.where(f"{name}: {reprlib.repr(values)}")
            raise UserError(f"{shown}: expected a list of values, found {kind_of(values)}")
    runs = math.prod(map(len, axes.values()))
    if runs > MOST_RUNS:
        sizes = " x ".join(f"{len(values)} {name}" for name, values in axes.items())
        raise UserError(f"--sweep: {runs:,} runs ({sizes}), expected at most {MOST_RUNS:,}")
    return [
        Config.of(**settings | dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def runs(settings: Mapping[str, Any], axes: Axes) -> dict[str, Config]:
    """The configurations of `configs` by the names of their folders.

    Raises:
        UserError: as in `configs`, or two runs of one name, of which one would be lost.
    """
    found: dict[str, Config] = {}
    for config in configs(settings, axes):
        name = run_name(config, axes)
        if name in found:
            raise UserError(f"--sweep: two runs have the name {name}, expected values that differ")
        found[name] = config
    return found


def run_name(config: Config, names: Iterable[str]) -> str:
    """The name of a run's folder, unique within a sweep: what it differs in.

    Args:
        config: of the run.
        names: settings that runs differ in.
    """
    flat = config.flat()
    name = ",".join(f"{name}={_short(flat[name])}" for name in names) or "run"
    content = name.encode()
    if len(content) <= _LONGEST_NAME:
        return name
    begin = content[:_LONGEST_NAME].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(content).hexdigest()[:8]}"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, float) and float(text) != value:
        text = str(value)  # with all its digits
    return text.replace(",", "+").replace("/", "_")


class _Loader(yaml.SafeLoader):
    """YAML as a tree of bounded size: neither nested deeply nor grown by its aliases."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """The next node, with the number of values in it as its `size`.

        Raises:
            ComposerError: it is too deep or too large.
        """
        self._depth += 1
        if self._depth > _DEEPEST + 1:
            _refuse(f"nested deeper than {_DEEPEST} levels", self.peek_event().start_mark)
        mark, again = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if again and not hasattr(node, "size"):
            _refuse("an alias contains itself", mark)
        if not again:
            parts = node.value if node.id == "sequence" else itertools.chain(*node.value)
            node.size = 1 if node.id == "scalar" else 1 + sum(part.size for part in parts)
        if node.size > _MOST_VALUES:
            _refuse(f"holds more than {_MOST_VALUES:,} values", mark)
        return node


def _refuse(problem: str, mark: yaml.Mark) -> NoReturn:
    raise yaml.composer.ComposerError(None, None, problem, mark)


def _tree(where: str, path: Path) -> yaml.Node | None:
    """The file's content.

    Raises:
        UserError: it is not there, or no YAML.
    """
    try:
        text = files.read_text(path, _LARGEST_FILE)
    except UserError as error:
        raise UserError(f"--config={error}") from None
    try:
        return yaml.compose(text, _Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{where}: line {line}: not readable as YAML (the character "
            f"U+{error.character:04X} is not allowed), expected {_FILE}"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        reason = (getattr(error, "problem", None) or str(error)).removeprefix("but ")
        raise UserError(
            f"{where}: {line}not readable as YAML ({reason}), expected {_FILE}"
        ) from None


def _entries(where: str, node: yaml.Node | None, problem: str) -> list[tuple[str, yaml.Node]]:
    """The names and values of a mapping.

    Raises:
        UserError: it is none, or a name appears twice.
    """
    if not isinstance(node, yaml.MappingNode):
        here = where if node is None else _line(where, node)
        raise UserError(f"{here}: {problem}, expected {_FILE}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        here = _line(where, key)
        name = _scalar(f"{here}: the name of a setting", key) or ""
        if name in found:
            raise UserError(f"{here}: {name} appears twice, expected once")
        found[name] = value
    return list(found.items())


def _line(where: str, node: yaml.Node) -> str:
    return f"{where}: line {node.start_mark.line + 1}"


def _text(node: yaml.Node) -> str | None:
    """What a scalar says; None of null, and "" of what is no scalar."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if node.style in ("|", ">"):
        return node.value.rstrip("\n")  # blocks end with a line's end, which nobody means
    return None if node.style is None and node.value in _NOTHING else node.value


def _scalar(where: str, node: yaml.Node) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        kind = "a list" if node.id == "sequence" else "a mapping"
        raise UserError(f"{where} is {kind}, expected one value, as in {_FILE}")
    return _text(node)


def _value(where: str, name: str, node: yaml.Node) -> Any:
    """The value of a setting in a file.

    Raises:
        UserError: it does not take it.
    """
    if name in LISTS:
        if isinstance(node, yaml.SequenceNode):
            return ",".join(_scalar(where, part) or "" for part in node.value)
        return _scalar(where, node)
    leaf = leaves()[name]
    if _text(node) is None and leaf.default is None:
        return None
    return _parsed(where, setting_type(leaf), check_of(leaf), node)


def _parsed(where: str, kind: type, check: Check, node: yaml.Node) -> Any:
    text = _scalar(where, node) or ""
    try:
        return parsed(kind, check, text)
    except UnfitError as expected:
        raise UserError(f"{where}={text}: expected {expected}") from None


def _listed(where: str, name: str, node: yaml.Node) -> tuple[Any, ...]:
    """The values of an axis in a file."""
    SWEEP.check_known(where, name, shown=str)
    where = f"{where}: {name}"
    # One number alone is no list; as in a line, one name is.
    is_text = setting_type(leaves()[name]) is str
    text = _text(node) or ""
    if "," in text or notation.scale_of(name, text) or (text and is_text):
        return _values(where, name, text)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise UserError(f"{where} has no list of values, expected {_FILE}")
    found = [_value(where, name, part) for part in node.value]
    return SWEEP.distinct(where, name, found)


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
    if len(parts) != 3 or not 2 <= number <= MOST_RUNS:
        raise UserError(
            f"{where}: expected {scale}:first:last:number with at least 2 points and at most "
            f"{MOST_RUNS:,}, like {right}"
        )
    forwards = SWEEP.where(f"{name}={scale}:{parts[1]}:{parts[0]}:{number}")
    notation.check_ends(where, scale, (first, last), right, forwards)
    space = np.geomspace if scale == "log" else np.linspace
    with np.errstate(over="ignore", invalid="ignore"):
        points = [float(f"{x:.6g}") for x in space(first, last, number)]
    if not all(map(math.isfinite, points)):
        raise UserError(f"{where}: expected ends that are less far apart, like {right}")
    if whole:
        points = [round(x) for x in points]
    return SWEEP.distinct(where, name, points)
