"""The standard workload, and all that the contenders are given to start from.

10,000 clients, all in the cohort, 16 train items each, 4 negatives per train item, 5 local epochs,
1,676 items, d = 64, three views, FedAvg, plain SGD on the clients. The contenders rely on the
method's defaults and on histories of one length.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedvlr_jax import Config, data
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.client.negatives import sample_negatives
from fedvlr_jax.data import Dataset
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.federated_round import FederationState
from fedvlr_jax.simulation.private import stacked
from fedvlr_jax.simulation.simulation import Simulation, build

STANDARD = {
    "client_solver": "sgd",
    "items": 1676,
    "history_length": 16,
    "negatives": 4,
    "views": "sum,mlp,gate",
}
# The settings that may differ from the standard workload and leave the contenders comparable.
SETTINGS = ("items", "history_length", "negatives", "local_epochs", "dim", "views", "seed")


def config(clients: int, **settings: Any) -> Config:
    """The workload at a number of clients; `settings` differ from the standard.

    Raises:
        UserError: a bad setting, or histories that are not of one length.
    """
    made = Config.of(clients=clients, **(STANDARD | settings))
    if not made.data.history_length:
        raise UserError("--history_length=0: expected at least 1, histories are of one length")
    return made


@dataclass(frozen=True)
class World:
    """Where every contender starts: the data, and the project's simulation of it."""

    config: Config
    dataset: Dataset
    simulation: Simulation

    @property
    def histories(self) -> Int[np.ndarray, "clients history"]:
        """Every client's train items."""
        return self.dataset.interactions.items.reshape(self.n_clients, -1)

    @property
    def n_clients(self) -> int:
        """Number of clients, all of the cohort."""
        return self.dataset.interactions.n_clients

    def initial_state(self) -> FederationState:
        """A new copy of the state before the first round, of server and clients."""
        return self.simulation.initial_state(self.config.schedule.seed)

    def private(self, state: FederationState) -> ClientState:
        """The clients' states in a state, stacked."""
        model = self.simulation.federation.training.model
        return jax.jit(functools.partial(stacked, model))(state.private)


def world(config: Config) -> World:
    """The workload's data and simulation."""
    dataset = data.load(config)
    return World(config, dataset, build(config, dataset))


class Negatives:
    """The negatives that the project draws, for contenders that are handed theirs.

    A contender that is handed negatives draws none inside its timed rounds, which favours it; in
    return all train on the same samples, and their losses can be compared.
    """

    def __init__(self, world: World) -> None:
        method = world.config.method
        self._words = keys.from_seed(world.config.schedule.seed)
        self._histories = jnp.asarray(world.histories)
        self._draw = functools.partial(
            _draw_round,
            n_items=world.dataset.interactions.n_items,
            epochs=method.local_epochs,
            per_positive=method.negatives,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(epochs, clients, negatives of a client and epoch)."""
        return jax.eval_shape(self._draw, self._key(0), self._histories).shape

    def of(self, number: int) -> Int[Array, "epochs clients drawn"]:
        """All clients' negatives of one round; rounds count from 0."""
        return jax.block_until_ready(self._draw(self._key(number), self._histories))

    def _key(self, number: int) -> Array:
        return keys.for_round(self._words, keys.CLIENT, number)


@functools.partial(jax.jit, static_argnames=("n_items", "epochs", "per_positive"))
def _draw_round(
    key: Array,
    histories: Int[Array, "clients history"],
    n_items: int,
    epochs: int,
    per_positive: int,
) -> Int[Array, "epochs clients drawn"]:
    def of_client(client: Array, history: Array, epoch: Array) -> Array:
        key_of_epoch = jax.random.fold_in(jax.random.fold_in(key, client), epoch)
        return sample_negatives(key_of_epoch, history, n_items, per_positive).ravel()

    clients = jnp.arange(len(histories))
    return jax.vmap(
        lambda epoch: jax.vmap(of_client, in_axes=(0, 0, None))(clients, histories, epoch)
    )(jnp.arange(epochs))
