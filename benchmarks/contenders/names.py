"""The contenders by their flag values: where each is found, and which library it needs."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One contender.

    Attributes:
        name: its flag value.
        module: below `benchmarks.contenders`; its `measure` times the contender in this process.
        needs: importable packages that it needs beyond the project's own.
        note: what a reader of the table should know.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that it needs and that are not installed."""
        return tuple(p for p in self.needs if importlib.util.find_spec(p) is None)


REFERENCE = "fedvlr_jax"
_ENTRIES = (
    Entry(REFERENCE, "project", note="draws its own negatives inside the timed round"),
    Entry("vmap", "all_at_once", note="one vmap over all clients, autodiff, one jitted round"),
    Entry("loop", "one_by_one", note="a jitted client in a Python loop"),
    Entry("drjax", "by_drjax", ("drjax",), note="drjax.broadcast, map_fn, reduce_sum"),
    Entry("torch", "by_torch", ("torch",), note="a PyTorch client in a Python loop, on the CPU"),
    Entry(
        "flower",
        "by_flower",
        ("flwr", "ray", "torch"),
        note="Flower's simulation engine (Ray) around the PyTorch client; memory is the sum of "
        "the peaks of its processes, in which shared pages count more than once",
    ),
)
BY_NAME = {entry.name: entry for entry in _ENTRIES}
