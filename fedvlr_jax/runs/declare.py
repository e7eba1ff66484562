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
SWEEP = Notation("sweep", "swept", has_points=True)
STUDY = Notation("search", "searched", has_points=True)
_LONGEST_NAME = 200  # bytes of a run's name; a file system takes 255
_FILE = "lines like 'rounds: 30' and 'sweep: {clients: [100, 1000]}'"
_LARGEST_FILE = 1 << 18  # bytes
_MOST_VALUES = 20_000  # in a file, those counted again that an alias repeats
_DEEPEST = 4  # a list of names, in a list of values, of an axis, in the file
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Declared:
    """What a file declares.

    Attributes:
        settings: of all runs.
        axes: what runs differ in.
        others: everything else by its name.
        lines: the file and line of every name, as sentences begin with them.
    """

    settings: dict[str, Any]
    axes: Axes
    others: dict[str, Any]
    lines: dict[str, str] = field(default_factory=dict)

    def placed(self, reason: UserError) -> UserError:
        """What is wrong with a setting, with its line if it comes from the file."""
        line = self.lines.get(reason.setting or "")
        return UserError(f"{line}: {reason}") if line else reason


def axes(lines: Sequence[str], of: Notation = SWEEP) -> Axes:
    """The axes that lines of the form `name=values` declare, in order.

    Args:
        lines: as they are given after a flag.
        of: that flag.

    Raises:
        UserError: a line that is no axis of a known setting, or two of one setting.

    Example:
        >>> axes(["variant=fedvlr,mlp", "server_lr=log:1e-4:1e-1:4"])
        {'variant': ('fedvlr', 'mlp'), 'server_lr': (0.0001, 0.001, 0.01, 0.1)}
        >>> axes(["views=sum,mlp,gate|image,text"])
        {'views': ('sum,mlp,gate', 'image,text')}
    """
    return {
        name: _values(of, of.where(f"{name}={text}"), name, text)
        for name, text in of.split(lines).items()
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
    file = Declared({}, {}, {}, {})
    entries = _entries(where, _tree(where, path), "holds no settings")
    # Plugins come first: they add to what others may be.
    for name, node in sorted(entries, key=lambda entry: entry[0] != "plugins"):
        here = file.lines[name] = _line(where, node)
        if name == "sweep":
            problem = "sweep is not a mapping of settings to values"
            for axis, values in [] if _is_null(node) else _entries(where, node, problem):
                file.lines[axis] = _line(where, values)
                file.axes[axis] = _axis(f"{file.lines[axis]}: sweep", axis, values)
        elif others and name in others:
            file.others[name] = _parsed(f"{here}: {name}", *others[name], node)
        else:
            SWEEP.check_known(here, name, shown=str)
            file.settings[name] = _value(f"{here}: {name}", name, node)
        if name == "plugins" and file.settings[name] is not None:
            load_plugins(file.settings[name])
    for name in file.axes:
        if name in file.settings:
            raise UserError(f"{file.lines[name]}: {name} is set and swept, expected one of the two")
    return file


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
    check_number(SWEEP, axes)
    return [
        Config.of(**settings | dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def check_number(of: Notation, axes: Axes, most: int = 0) -> None:
    """Refuse too many combinations of values.

    Args:
        of: the flag that declares the axes.
        axes: of the runs.
        most: how many of all combinations are runs; 0 means all.

    Raises:
        UserError: there are more than a folder takes.
    """
    number = math.prod(map(len, axes.values()))
    if min(number, most or number) > MOST_RUNS:
        sizes = " x ".join(f"{len(values)} {name}" for name, values in axes.items())
        raise UserError(f"--{of.flag}: {number:,} runs ({sizes}), expected at most {MOST_RUNS:,}")


def runs(settings: Mapping[str, Any], axes: Axes) -> dict[str, Config]:
    """The configurations of `configs` by the names of their folders.

    Raises:
        UserError: as in `configs`, or two runs of one name, of which one would be lost.
    """
    by_name: dict[str, Config] = {}
    for config in configs(settings, axes):
        name = run_name(config, axes)
        if name in by_name:
            raise UserError(f"--sweep: two runs have the name {name}, expected values that differ")
        by_name[name] = config
    return by_name


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
        """The next node, with the number of values in it as its `size`."""
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
    """The file's content; what is no YAML is refused."""
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
    """The names and values of a mapping; names that appear twice are refused."""
    if not isinstance(node, yaml.MappingNode):
        here = where if node is None else _line(where, node)
        raise UserError(f"{here}: {problem}, expected {_FILE}")
    entries: dict[str, yaml.Node] = {}
    for key, value in node.value:
        here = _line(where, key)
        name = _text(f"{here}: the name of a setting", key) or ""
        if name in entries:
            raise UserError(f"{here}: {name} appears twice, expected once")
        entries[name] = value
    return list(entries.items())


def _line(where: str, node: yaml.Node) -> str:
    return f"{where}: line {node.start_mark.line + 1}"


def _is_null(node: yaml.Node) -> bool:
    return node.id == "scalar" and node.style is None and node.value in _NOTHING


def _text(where: str, node: yaml.Node) -> str | None:
    """What a scalar says, None of null."""
    if not isinstance(node, yaml.ScalarNode):
        kind = "a list" if node.id == "sequence" else "a mapping"
        raise UserError(f"{where} is {kind}, expected one value, as in {_FILE}")
    if node.style in ("|", ">"):
        return node.value.rstrip("\n")  # blocks end with a line's end, which nobody means
    return None if _is_null(node) else node.value


def _value(where: str, name: str, node: yaml.Node) -> Any:
    """The value of a setting in a file."""
    leaf = leaves()[name]
    if name in LISTS and isinstance(node, yaml.SequenceNode):
        return ",".join(_text(where, part) or "" for part in node.value)
    if name in LISTS or (_is_null(node) and leaf.default is None):
        return _text(where, node)
    return _parsed(where, setting_type(leaf), check_of(leaf), node)


def _parsed(where: str, kind: type, check: Check, node: yaml.Node) -> Any:
    text = _text(where, node) or ""
    try:
        return parsed(kind, check, text)
    except UnfitError as expected:
        raise UserError(f"{where}={text}: expected {expected}") from None


def _axis(where: str, name: str, node: yaml.Node) -> tuple[Any, ...]:
    """The values of an axis in a file."""
    SWEEP.check_known(where, name, shown=str)
    where = f"{where}: {name}"
    if isinstance(node, yaml.ScalarNode):
        text = _text(where, node) or ""
        # One number alone is no list; as in a line, one name is.
        is_text = setting_type(leaves()[name]) is str
        if "," in text or notation.is_range(name, text) or (text and is_text):
            return _values(SWEEP, where, name, text)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise UserError(f"{where} has no list of values, expected {_FILE}")
    return SWEEP.distinct(where, name, [_value(where, name, part) for part in node.value])


def _values(of: Notation, where: str, name: str, text: str) -> tuple[Any, ...]:
    """The values of an axis as they are written in a line: a list, or the points of a range."""
    if not notation.is_range(name, text):
        return of.listed(where, name, text)
    first, last, number = of.range(where, name, text)
    space = np.geomspace if text.startswith("log") else np.linspace
    with np.errstate(over="ignore", invalid="ignore"):
        points = [float(f"{x:.6g}") for x in space(first, last, number)]
    if not all(map(math.isfinite, points)):
        raise UserError(
            f"{where}: expected ends that are less far apart, like {of.right_range(name, text)}"
        )
    if setting_type(leaves()[name]) is int:
        points = [round(x) for x in points]
    return of.distinct(where, name, points)
