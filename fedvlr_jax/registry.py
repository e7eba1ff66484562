"""What a flag takes by name and plugins can add to: backbones, views and aggregations.

The package's own are put here by the rooms that they are from.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import Check, kind_of

_PACKAGE = "fedvlr_jax"


class Registry(Mapping[str, Any]):
    """Things of one kind by their names, in the order in which they came."""

    def __init__(self, kind: str) -> None:
        self._kind = kind  # for sentences
        self._found: dict[str, Any] = {}
        self._modules: dict[str, str] = {}  # whose they are

    def add(self, *things: Any, module: str = _PACKAGE) -> None:
        """Add things by their own names; a module may give its own another time.

        Raises:
            UserError: one of another kind than the package's own, or a name that is none or taken.
        """
        where = f"register_{self._kind}"
        for thing in things:
            kind = type(next(iter(self._found.values()), thing))
            if not isinstance(thing, kind):
                raise UserError(
                    f"{where}: expected a fedvlr_jax.{kind.__name__}, found {kind_of(thing)}"
                )
            name = thing.name
            if not isinstance(name, str) or not name.isidentifier():
                raise UserError(f"{where}: the name is {name!r}, expected one like my_{self._kind}")
            whose = self._modules.get(name, module)
            if whose != module:
                raise UserError(f"{where}: the name {name} is taken by {whose}, expected another")
            self._found[name], self._modules[name] = thing, module

    def remove(self, module: str) -> None:
        """Take away what a module has added."""
        for name in [name for name, whose in self._modules.items() if whose == module]:
            del self._found[name], self._modules[name]

    def check(self) -> Check:
        """Whether a text is one of the names that are here now."""
        return (lambda v: v in self, f"one of {', '.join(self)}")

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


BACKBONES, VIEWS, AGGREGATIONS = map(Registry, ("backbone", "view", "aggregation"))
