"""What a flag takes by name and plugins can add to: backbones, views and aggregations.

The package's own are put here by the rooms that they are from.
"""

from typing import Any

from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import Check, kind_of

importing = ["this program"]  # the plugin whose code runs, the last one, is whose things come


class Registry(dict[str, Any]):
    """Things of one kind by their names, in the order in which they came."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind  # for sentences
        self._owners: dict[str, str] = {}

    def own(self, *things: Any) -> None:
        """Add the package's own."""
        for thing in things:
            self[thing.name], self._owners[thing.name] = thing, "fedvlr_jax"

    def register(self, thing: Any) -> None:
        """Let flags take a thing that is not the package's own, by its name.

        Whoever has registered a name may give it to another thing, as a notebook's cell does that
        is run again.

        Raises:
            UserError: it is of another kind than the package's own, or its name is none or taken.
        """
        kind, where = type(next(iter(self.values()))), f"register_{self._kind}"
        if not isinstance(thing, kind):
            raise UserError(
                f"{where}: expected a fedvlr_jax.{kind.__name__}, found {kind_of(thing)}"
            )
        name = thing.name
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{where}: the name is {name!r}, expected one like my_{self._kind}")
        owner = self._owners.setdefault(name, importing[-1])
        if owner != importing[-1]:
            raise UserError(f"{where}: the name {name} is taken by {owner}, expected another")
        self[name] = thing

    def remove(self, plugin: str) -> None:
        """Take away what a plugin has registered."""
        for name in [name for name, owner in self._owners.items() if owner == plugin]:
            del self[name], self._owners[name]

    def check(self) -> Check:
        """Whether a text is one of the names that are here now."""
        return (lambda v: v in self, f"one of {', '.join(self)}")


BACKBONES, VIEWS, AGGREGATIONS = map(Registry, ("backbone", "view", "aggregation"))
