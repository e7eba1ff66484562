"""How values of settings are written on a command line: `name=values`, after --sweep or --search.

Values are a list (`100,1000`), or a range of numbers (`lin:0:0.5`, `log:1e-4:1e-1`), which a sweep
also gives a number of points (`lin:0:0.5:6`). Settings that are lists themselves part their values
by `|` (`views=sum,mlp,gate|image,text`).
"""

import difflib
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedvlr_jax.config import LISTS, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import MOST_RUNS, check_of, kind_of, number, setting_type

_EXAMPLES = {str: "data/KU,synthetic", int: "100,1000", float: "0.01,0.1"}


@dataclass(frozen=True)
class Notation:
    """Lines of one flag.

    Attributes:
        flag: its name, without dashes.
        done: what it does to a setting, for sentences: "swept".
        has_points: whether ranges have a number of points.
    """

    flag: str
    done: str
    has_points: bool = False

    def where(self, line: str) -> str:
        """The line as it was given, which complaints begin with."""
        return f"--{self.flag}={line}"

    def right(self, name: str) -> str:
        """A line that would do for a known setting."""
        leaf = leaves()[name]
        if name in LISTS:
            numbers = leaf.type == tuple[int, ...]
            first, second, *_ = *LISTS[name], *(("10", "50") if numbers else ("my_module", "other"))
            return self.where(f"{name}={first},{second}|{first}")
        _, expected = check_of(leaf)
        if expected.startswith("one of "):
            known = expected.removeprefix("one of ").split(", ")
            return self.where(f"{name}={','.join(known[:2])}")
        return self.where(f"{name}={_EXAMPLES[setting_type(leaf)]}")

    def right_range(self, name: str, text: str) -> str:
        """A line with a range that would do, on the scale of `text`."""
        if setting_type(leaves()[name]) is int:
            ends = "100:10000:3" if self.has_points else "8:128"
        else:
            ends = "1e-4:1e-1:4" if self.has_points else "1e-4:1e-1"
        return self.where(f"{name}={text[:3]}:{ends}")

    def check_known(self, where: str, name: str, shown: Callable[[str], str] | None = None) -> None:
        """Refuse what is no setting.

        Args:
            where: what the sentence of a complaint begins with.
            name: of a setting, perhaps.
            shown: what the sentence shows of a known setting; by default a line.

        Raises:
            UserError: there is none of this name; the sentence shows one that is close.
        """
        known = list(leaves())
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or ["server_lr"]
            raise UserError(
                f"{where}: unknown setting {name or '(none)'}, expected one that --help names, "
                f"like {(shown or self.right)(close[0])}"
            )

    def split(self, lines: Any) -> dict[str, str]:
        """Values as they are written, by the setting's name, in order.

        Args:
            lines: a list of texts, or one alone; from Python anything may come.

        Raises:
            UserError: a line that has no known setting or no values, or two of one setting.
        """
        values_of: dict[str, str] = {}
        for line in lines if isinstance(lines, list | tuple) else [lines]:
            if not isinstance(line, str):
                raise UserError(
                    f"{self.where(reprlib.repr(line))}: expected lines like "
                    f"{self.right('server_lr')}, found {kind_of(line)}"
                )
            name, equals, values = line.partition("=")
            self.check_known(self.where(line), name)
            if not equals or not values:
                raise UserError(f"{self.where(line)}: has no values, expected {self.right(name)}")
            if name == "cutoffs" and self.flag == "search":
                raise UserError(
                    f"{self.where(line)}: cutoffs decide what scores are, expected another "
                    f"setting, like {self.right('server_lr')}"
                )
            if name in values_of:
                raise UserError(
                    f"{self.where(line)}: {name} is {self.done} twice, expected one line with all "
                    f"its values, like {self.right(name)}"
                )
            values_of[name] = values
        return values_of

    def refuse_set(self, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        """Refuse a setting that has a value of its own beside those that a line gives it.

        Raises:
            UserError: one of the `names` is in `settings`.
        """
        for name in names:
            if name in settings:
                raise UserError(
                    f"--{name}={settings[name]}: {name} is {self.done} as well, expected one of "
                    f"the two, like {self.right(name)} alone"
                )

    def listed(self, where: str, name: str, text: str) -> tuple[Any, ...]:
        """The values of a list.

        Args:
            where: what the sentence of a complaint begins with.
            name: of a known setting.
            text: the list.

        Raises:
            UserError: a value of another type than the setting's, an empty one, or one that stands
                twice.
        """
        kind = setting_type(leaves()[name])
        parts = [part.strip() for part in text.split("|" if name in LISTS else ",")]
        if name in LISTS:  # as runs have them in their settings
            parts = [",".join(one.strip() for one in part.split(",")) for part in parts]
        try:
            values = parts if kind is str else [number(kind, part) for part in parts]
        except (ValueError, OverflowError):
            expected = "whole numbers" if kind is int else "numbers"
            raise UserError(f"{where}: expected {expected}, like {self.right(name)}") from None
        if "" in parts:
            raise UserError(f"{where}: a value is empty, expected a line like {self.right(name)}")
        return self.distinct(where, name, values)

    def distinct(self, where: str, name: str, values: Sequence[Any]) -> tuple[Any, ...]:
        """The values, of which none may stand twice.

        Raises:
            UserError: one does.
        """
        if len(set(values)) != len(values):
            raise UserError(
                f"{where}: a value is named twice, expected each once, like {self.right(name)}"
            )
        return tuple(values)

    def range(self, where: str, name: str, text: str) -> tuple[float, float, int]:
        """The first and last number of a range, and how many points; 0 without `has_points`.

        Args:
            where: what the sentence of a complaint begins with.
            name: of a known setting.
            text: of a range (`is_range`).

        Raises:
            UserError: it is not written like one, goes backwards or nowhere, or begins at or below
                0 on a log scale.
        """
        scale, *parts = text.split(":")
        right = self.right_range(name, text)
        form = f"{scale}:first:last"
        if self.has_points:
            form += f":number with at least 2 points and at most {MOST_RUNS:,}"
        try:
            first, last = map(float, parts[:2])
            points = int(parts[2]) if self.has_points else 0
        except (IndexError, ValueError):
            first, last, points = math.nan, math.nan, 0
        if (
            not (math.isfinite(first) and math.isfinite(last))
            or len(parts) != 2 + self.has_points
            or (self.has_points and not 2 <= points <= MOST_RUNS)
        ):
            raise UserError(f"{where}: expected {form}, like {right}")
        whole = setting_type(leaves()[name]) is int and not self.has_points
        if whole and not (first.is_integer() and last.is_integer()):
            raise UserError(f"{where}: expected whole numbers, like {right}")
        if first > last:
            turned = ":".join([scale, parts[1], parts[0], *parts[2:]])
            raise UserError(f"{where}: goes backwards, expected {self.where(f'{name}={turned}')}")
        if first == last:
            raise UserError(
                f"{where}: goes nowhere, expected a first point below the last, like {right}"
            )
        if scale == "log" and first <= 0:
            raise UserError(f"{where}: expected numbers above 0 on a log scale, like {right}")
        return first, last, points


def is_range(name: str, text: str) -> bool:
    """Whether values of a known setting are a range of numbers, and no list."""
    return setting_type(leaves()[name]) is not str and text.partition(":")[0] in ("lin", "log")
