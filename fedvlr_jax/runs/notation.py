"""How values of settings are written on a command line: `name=values`, after --sweep or --search.

Values are a list (`100,1000`), or a range of numbers that begins with its scale (`lin:`, `log:`);
what follows the scale, the flag decides. Settings that are lists themselves part their values by
`|` (`views=sum,mlp,gate|image,text`).
"""

import difflib
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedvlr_jax.config import LISTS, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import check_of, kind_of, number, setting_type

_EXAMPLES = {str: "data/KU,synthetic", int: "100,1000", float: "0.01,0.1"}
_SCALES = ("lin", "log")


@dataclass(frozen=True)
class Notation:
    """Lines of one flag.

    Attributes:
        flag: its name, without dashes.
        done: what it does to a setting, for sentences: "swept".
    """

    flag: str
    done: str

    def where(self, line: str) -> str:
        """The line as it was given, which complaints begin with."""
        return f"--{self.flag}={line}"

    def right(self, name: str) -> str:
        """A line that would do for a known setting."""
        leaf = leaves()[name]
        if name in LISTS:
            first, second, *_ = *LISTS[name], "my_module", "other"
            return self.where(f"{name}={first},{second}|{first}")
        _, expected = check_of(leaf)
        if expected.startswith("one of "):
            known = expected.removeprefix("one of ").split(", ")
            return self.where(f"{name}={','.join(known[:2])}")
        return self.where(f"{name}={_EXAMPLES[setting_type(leaf)]}")

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
        found: dict[str, str] = {}
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
            if name in found:
                raise UserError(
                    f"{self.where(line)}: {name} is {self.done} twice, expected one line with all "
                    f"its values, like {self.right(name)}"
                )
            found[name] = values
        return found

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
        try:
            found = parts if kind is str else [number(kind, part) for part in parts]
        except (ValueError, OverflowError):
            expected = "whole numbers" if kind is int else "numbers"
            raise UserError(f"{where}: expected {expected}, like {self.right(name)}") from None
        if "" in parts:
            raise UserError(f"{where}: a value is empty, expected a line like {self.right(name)}")
        return self.distinct(where, name, found)

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


def scale_of(name: str, text: str) -> str | None:
    """The scale of a range of numbers, `lin` or `log`; None of a list."""
    scale = text.partition(":")[0]
    is_number = setting_type(leaves()[name]) is not str
    return scale if is_number and scale in _SCALES else None


def check_ends(
    where: str, scale: str, ends: tuple[float, float], right: str, forwards: str
) -> None:
    """Refuse a range that is none.

    Args:
        where: what the sentence of a complaint begins with.
        scale: `lin` or `log`.
        ends: the first number and the last, both finite.
        right: a line that would do.
        forwards: the line with its ends the other way round.

    Raises:
        UserError: it goes backwards or nowhere, or begins at or below 0 on a log scale.
    """
    first, last = ends
    if first > last:
        raise UserError(f"{where}: goes backwards, expected {forwards}")
    if first == last:
        raise UserError(
            f"{where}: goes nowhere, expected a first point below the last, like {right}"
        )
    if scale == "log" and first <= 0:
        raise UserError(f"{where}: expected numbers above 0 on a log scale, like {right}")


def finite(texts: Sequence[str]) -> tuple[float, ...]:
    """The numbers in texts.

    Raises:
        ValueError: one is no number, or not finite.
    """
    numbers = tuple(float(text) for text in texts)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{texts}: expected finite numbers")
    return numbers
