"""Flower's simulation engine: a ServerApp that sends the views to ClientApps in Ray's actors."""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from benchmarks.contenders import client, server, torch_client
from benchmarks.contenders.client import Rates
from benchmarks.contenders.torch_client import Private
from benchmarks.stepping import Contender
from benchmarks.workload import Negatives, World

Result = TypeVar("Result")
CLIENTS = ClientApp()


@functools.cache
def _stored(folder: str, name: str) -> np.ndarray:
    """An array that `run` stored for the clients; they read the rows they need."""
    return np.load(Path(folder) / f"{name}.npy", mmap_mode="r")


def _private(folder: str, u: int, context: Context) -> Private:
    """Client u's own state: what it kept, or its initial state in its first round."""
    if "private" in context.state:
        return Private(*context.state["private"].to_torch_state_dict().values())
    return Private(*(torch.tensor(_stored(folder, name)[u]) for name in Private._fields))


@CLIENTS.train()
def train(message: Message, context: Context) -> Message:
    """One client's round: trained private state kept, the touched rows' gradients sent back."""
    config = message.content["config"]
    u, folder = config["client"], config["folder"]
    views = message.content["views"].to_torch_state_dict()["views"]
    negatives = message.content["negatives"].to_torch_state_dict()["negatives"]
    history = torch.tensor(_stored(folder, "histories")[u])
    private, total = _private(folder, u, context), torch.zeros_like(views)
    rates = Rates(config["head_rate"], config["router_rate"])
    loss = torch_client.train(views, private, history, negatives, rates, total)
    context.state["private"] = ArrayRecord(private._asdict())
    items = torch.cat([history, negatives.flatten()]).unique()
    upload = ArrayRecord({"items": items, "gradient": total[items]})
    content = RecordDict({"upload": upload, "loss": MetricRecord({"loss": loss})})
    return Message(content, reply_to=message)


class ByFlower(Contender):
    """The server's side. Polling, messages and actors are Flower's; the step is JAX's."""

    serial = True

    def __init__(self, world: World, grid: Grid, folder: str) -> None:
        self._server, self._state = server.create(world, world.initial_state().server.params)
        self._views = jax.jit(self._server.views)
        self._step = jax.jit(self._server.step)
        rates = client.learner(world).rates
        self._config = {"folder": folder, "head_rate": rates.head, "router_rate": rates.router}
        self._n_clients, self._grid = world.n_clients, grid
        self._source = Negatives(world)
        self._peak = 0

    def compile(self) -> None:
        """Wait for the nodes, and compile the server."""
        while len(nodes := list(self._grid.get_node_ids())) < self._n_clients:
            time.sleep(0.1)
        self._nodes = sorted(nodes)
        jax.block_until_ready(self._step(self._state, self._views(self._state.params)))

    def prepare(self, number: int) -> None:
        """Draw the negatives that the messages will carry."""
        drawn = np.asarray(self._source.of(number)).transpose(1, 0, 2)
        self._negatives = torch.from_numpy(drawn.astype(np.int64))

    def round(self, clients: int) -> float:
        """The first `clients` clients' messages out and back, and the server's step."""
        views = torch.from_numpy(np.array(self._views(self._state.params)))
        record = ArrayRecord({"views": views})
        replies = self._grid.send_and_receive([self._message(u, record) for u in range(clients)])
        total, loss = torch.zeros_like(views), 0.0
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a Flower client failed: {reply.error.reason}")
            upload = reply.content["upload"].to_torch_state_dict()
            total.index_add_(0, upload["items"], upload["gradient"])
            loss += reply.content["loss"]["loss"]
        self._state = self._step(self._state, jnp.asarray(total.numpy()) / clients)
        jax.block_until_ready(self._state)
        return loss / clients

    def peak_bytes(self) -> int:
        """The memory of all its processes now, shared pages shared out among them."""
        process = psutil.Process()
        return sum(
            getattr(p.memory_full_info(), "pss", p.memory_info().rss)
            for p in [process, *process.children(recursive=True)]
        )

    def _message(self, u: int, views: ArrayRecord) -> Message:
        content = RecordDict(
            {
                "views": views,
                "negatives": ArrayRecord({"negatives": self._negatives[u]}),
                "config": ConfigRecord(self._config | {"client": u}),
            }
        )
        return Message(content, dst_node_id=self._nodes[u], message_type=MessageType.TRAIN)


def run(world: World, measure: Callable[[Contender], Result]) -> Result:
    """Measure it inside a simulation of Flower's, one actor for every core."""
    results: list[Result] = []
    app = ServerApp()
    with tempfile.TemporaryDirectory() as folder:
        private = torch_client.arrays(world.private(world.initial_state()))
        stored = dict(zip(Private._fields, private, strict=True))
        for name, rows in (stored | {"histories": world.histories.astype(np.int64)}).items():
            np.save(Path(folder) / f"{name}.npy", rows)
        del private, stored

        @app.main()
        def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower calls it so
            results.append(measure(ByFlower(world, grid, folder)))

        run_simulation(
            app,
            CLIENTS,
            num_supernodes=world.n_clients,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    if not results:
        raise RuntimeError("Flower's simulation ended before it was measured")
    return results[0]
