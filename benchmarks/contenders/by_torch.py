"""PyTorch on the CPU: clients one after the other, each by autograd."""

import time
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.contenders import client, server, torch_client
from benchmarks.contenders.torch_client import Private
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World

Result = TypeVar("Result")
_TRIED_CLIENTS = 20


class ByTorch(Contender):
    """A Python loop over clients whose parameters are stacked and stepped in place.

    The server is the JAX contenders' server: its step is a small part of a round.
    """

    serial = True

    def __init__(self, world: World) -> None:
        start = world.initial_state()
        self._server, self._state = server.create(world, start.server.params)
        self._views = jax.jit(self._server.views)
        self._step = jax.jit(self._server.step)
        self._rates = client.learner(world).rates
        stacked = torch_client.arrays(world.private(start))
        self._private = Private(*(torch.from_numpy(leaf) for leaf in stacked))
        self._histories = torch.from_numpy(world.histories.astype(np.int64))
        self._source = Negatives(world)

    def compile(self) -> None:
        """Compile the server, and choose the faster of one thread and torch's own number."""
        views = self._views(self._state.params)
        jax.block_until_ready(self._step(self._state, views))
        self.prepare(0)
        default = torch.get_num_threads()
        seconds = {n: self._trial(np.asarray(views), n) for n in {1, default}}
        torch.set_num_threads(min(seconds, key=seconds.get))

    def prepare(self, number: int) -> None:
        """Draw the negatives and hand them to torch."""
        drawn = np.asarray(self._source.of(number)).transpose(1, 0, 2)
        self._negatives = torch.from_numpy(drawn.astype(np.int64))

    def round(self, clients: int) -> float:
        """The first `clients` clients, one after the other, and the server's step."""
        views = torch.from_numpy(np.array(self._views(self._state.params)))
        total = torch.zeros_like(views)
        losses = [self._train(views, self._of(u), u, total) for u in range(clients)]
        self._state = self._step(self._state, jnp.asarray(total.numpy()) / clients)
        jax.block_until_ready(self._state)
        return sum(losses) / clients

    def _of(self, u: int) -> Private:
        return Private(*(leaf[u] for leaf in self._private))

    def _train(self, views: torch.Tensor, private: Private, u: int, total: torch.Tensor) -> float:
        return torch_client.train(
            views, private, self._histories[u], self._negatives[u], self._rates, total
        )

    def _trial(self, views: np.ndarray, threads: int) -> float:
        """Seconds that copies of the first clients take with so many threads."""
        torch.set_num_threads(threads)
        views = torch.from_numpy(np.array(views))
        total = torch.zeros_like(views)
        clients = range(min(_TRIED_CLIENTS, len(self._histories)))
        copies = [Private(*(leaf.clone() for leaf in self._of(u))) for u in clients]
        for _ in range(2):  # the first pass warms up
            begun = time.perf_counter()
            for u in clients:
                self._train(views, copies[u], u, total)
        return time.perf_counter() - begun


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it in this process."""
    return measure(ByTorch(world))
