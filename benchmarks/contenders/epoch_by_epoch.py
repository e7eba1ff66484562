"""A vmap over all clients inside a scan over epochs, see `all_at_once`."""

from collections.abc import Callable
from typing import TypeVar

from benchmarks.contenders.all_at_once import EpochByEpoch
from benchmarks.stepping import Contender
from benchmarks.workload import World

Result = TypeVar("Result")


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(EpochByEpoch(world))
