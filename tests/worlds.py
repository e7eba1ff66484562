"""Small data sets and simulations that the tests train on."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from fedvlr_jax.client.flat import flatten
from fedvlr_jax.client.model import ClientState
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Catalogue, Dataset, from_pairs
from fedvlr_jax.reporter import Silent
from fedvlr_jax.simulation.federated_round import Federation, Rates, attendance
from fedvlr_jax.simulation.private import stacked
from fedvlr_jax.simulation.simulation import Simulation, build

N_ITEMS = 40
LENGTHS = (3, 7, 1, 12, 3, 3, 1, 7, 20, 3, 1, 7, 12)


def dataset(
    lengths: tuple[int, ...] = LENGTHS, n_items: int = N_ITEMS, seed: int = 0, modalities: int = 2
) -> Dataset:
    """Clients with the given numbers of random train items, and held-out items for most."""
    rng = np.random.default_rng(seed)
    users, items, valid, test = [], [], [], []
    for user, length in enumerate(lengths):
        drawn = rng.permutation(n_items)[: length + 2]
        users += [user] * length
        items += drawn[:length].tolist()
        valid.append(drawn[length])
        test.append(drawn[length + 1] if user % 5 else -1)
    rows = [rng.standard_normal((n_items, width)).astype("f4") for width in (12, 10)]
    rows = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
    interactions = from_pairs(
        np.array(users),
        np.array(items),
        np.array(valid, np.int32),
        np.array(test, np.int32),
        n_items,
    )
    catalogue = Catalogue(*(rows[m] if m < modalities else None for m in range(2)))
    return Dataset("small", interactions, catalogue)


def config(**settings: Any) -> Config:
    """Small sizes, and rates high enough that every parameter moves visibly."""
    small = {
        "client_solver": "sgd",
        "layer_norm": "on",
        "warm_start": "none",
        "als_passes": 0,
        "experts": "none",
        "dim": 8,
        "local_epochs": 3,
        "negatives": 2,
        "server_lr": 0.1,
        "network_lr": 0.05,
        "client_lr": 0.5,
        "router_lr": 0.5,
        "own_lr": 0.1,
        "shared_lr": 0.2,
        "devices": 1,
        "rounds": 4,
        "eval_every": 2,
        "buckets": 1,  # every one more is compiled, too
        "checkpoint_seconds": 0,
    }
    if settings.get("client_solver") == "exact":
        small = {name: x for name, x in small.items() if name not in ("client_lr", "negatives")}
    return Config.of(**(small | settings))


def simulation(data: Dataset | None = None, **settings: Any) -> Simulation:
    """A simulation of `data` (the small data set by default)."""
    return build(config(**settings), data or dataset())


# Compiled as one program: op by op, every shape would be compiled for itself.
_opened = jax.jit(stacked, static_argnums=0)
_closed = jax.jit(lambda states: jax.vmap(flatten)(states))


def opened(of: Simulation, rows: Array) -> ClientState:
    """Clients' private states, stacked, from their rows."""
    return _opened(of.federation.training.model, rows)


def closed(states: ClientState, like: Array) -> Array:
    """The rows of stacked private states, lying on the devices as `like` does."""
    return jax.device_put(_closed(states), like.sharding)


def histories(data: Dataset) -> list[np.ndarray]:
    """Every client's train items, unpadded."""
    offsets = data.interactions.offsets
    return [data.interactions.items[a:b] for a, b in itertools.pairwise(offsets)]


class StopAfter(Silent):
    """A reporter that wants to stop after some rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def advance(self, _):
        self.left -= 1

    def wants_stop(self):
        return self.left <= 0


@functools.partial(jax.jit, static_argnums=0)
def came(federation: Federation, key: Array, number: Array, rates: Rates) -> Array:
    """Which clients take part in a round, by id, where devices take no time."""
    return attendance(federation, key, number, None, rates)[0].trains
