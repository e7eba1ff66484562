"""The contenders by their flag values: where each is found, and which library it needs."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One contender.

    Attributes:
        name: its flag value.
        module: below `benchmarks.contenders`; its `run` hands a contender to what measures it.
        note: what a reader of the table should know.
        needs: importable packages that it needs beyond the project's own.
        devices: JAX devices it is given; 0 = as many as the project takes by itself.
        most_clients: the largest number of clients it is raced at, 0 = any.
    """

    name: str
    module: str
    note: str
    needs: tuple[str, ...] = ()
    devices: int = 1
    most_clients: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that it needs and that are not installed."""
        return tuple(p for p in self.needs if importlib.util.find_spec(p) is None)


REFERENCE = "fedvlr_jax"
_ENTRIES = (
    Entry(
        REFERENCE,
        "project",
        "this project as fedvlr_jax.train runs it; draws its own negatives in the timed round",
        devices=0,
    ),
    Entry(
        "autodiff",
        "project_autodiff",
        "this project's general path, for heads without a closed form; draws negatives, too",
        devices=0,
    ),
    Entry("vmap", "all_at_once", "JAX: one vmap of every client's whole round, autodiff, one jit"),
    Entry("vmap_epochs", "epoch_by_epoch", "JAX: a scan over epochs, one vmap of all in each"),
    Entry("loop", "one_by_one", "JAX: a jitted client in a Python loop, the shape of FedJAX"),
    Entry(
        "drjax", "by_drjax", "DrJAX: broadcast, map_fn, reduce_sum, blocks of clients", ("drjax",)
    ),
    Entry("torch", "by_torch", "PyTorch: a client in a Python loop, on the CPU", ("torch",)),
    Entry(
        "flower",
        "by_flower",
        "Flower's simulation engine (Ray) around the PyTorch client",
        ("flwr", "ray", "torch", "psutil"),
        most_clients=1000,
    ),
)
BY_NAME = {entry.name: entry for entry in _ENTRIES}
