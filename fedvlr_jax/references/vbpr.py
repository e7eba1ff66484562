"""VBPR: matrix factorization with content features, trained by pairs (He and McAuley 2016).

arXiv 1510.01784: s_ui = b_i + p_u . q_i + t_u . (E f_i), here with f_i the image and text features
side by side, and the Bayesian personalized ranking loss (Rendle et al. 2009, arXiv 1205.2618).
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.data.types import Catalogue, Interactions
from fedvlr_jax.references.ranking import train_matrix

_SPREAD = 0.1  # of initial factors
_BATCH = 2048
Parameters = dict[str, Any]


def epochs(
    data: Interactions,
    catalogue: Catalogue,
    *,
    dim: int,
    learning_rate: float,
    penalty: float,
    seed: int,
) -> Iterator[Float[np.ndarray, "clients items"]]:
    """Scores after every epoch of training with Adam, without end.

    Args:
        data: all clients' interactions.
        catalogue: features; without any, this is plain matrix factorization.
        dim: width of both kinds of factors.
        learning_rate: of Adam.
        penalty: of the squared factors that a batch touches.
        seed: of initial factors and negatives.
    """
    with numerics.as_written():
        present = [
            np.asarray(x, np.float32) for x in (catalogue.image, catalogue.text) if x is not None
        ]
        nothing = np.zeros((data.n_items, 0), np.float32)
        features = jnp.asarray(np.concatenate([nothing, *present], 1))
        owned = jnp.asarray(train_matrix(data) > 0)
        clients = jnp.asarray(np.repeat(np.arange(data.n_clients), data.lengths))
        pairs = clients, jnp.asarray(data.items)
        key = jax.random.key(seed)
        params = _initial(key, data.n_clients, data.n_items, features.shape[1], dim)
        state = optax.adam(learning_rate).init(params)
    for number in itertools.count(1):
        with numerics.as_written():
            params, state = _epoch(
                jax.random.fold_in(key, number),
                params,
                state,
                features,
                owned,
                pairs,
                jnp.float32(learning_rate),
                jnp.float32(penalty),
            )
            scores = np.asarray(_scores(params, features))
        yield scores


def _initial(key: Array, n_clients: int, n_items: int, width: int, dim: int) -> Parameters:
    shapes = {
        "p": (n_clients, dim),
        "q": (n_items, dim),
        "t": (n_clients, dim),
        "E": (width, dim),
    }
    keys = jax.random.split(key, len(shapes))
    drawn = {
        name: _SPREAD * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return drawn | {"b": jnp.zeros(n_items)}


@functools.partial(jax.jit, donate_argnums=(1, 2))
def _epoch(
    key: Array,
    params: Parameters,
    state: optax.OptState,
    features: Float[Array, "items width"],
    owned: Array,
    pairs: tuple[Int[Array, " pairs"], Int[Array, " pairs"]],
    learning_rate: Float[Array, ""],
    penalty: Float[Array, ""],
) -> tuple[Parameters, optax.OptState]:
    """Every train pair once, in random order, each against a random item the client has not."""
    clients, items = pairs
    n_pairs, n_items = len(clients), owned.shape[1]
    order_key, negative_key = jax.random.split(key)
    n_batches = -(-n_pairs // _BATCH)
    order = jax.random.permutation(order_key, n_pairs)
    # The last batch is filled with pairs of the first one.
    order = jnp.resize(order, n_batches * min(_BATCH, n_pairs)).reshape(n_batches, -1)
    # Twenty tries: an item that the client has would do little harm, and hardly ever happens.
    tries = jax.random.randint(negative_key, (20, n_pairs), 0, n_items)
    free = ~owned[clients[None], tries]
    negatives = jnp.take_along_axis(tries, free.argmax(axis=0)[None], axis=0)[0]

    def loss(params: Parameters, batch: Array) -> Array:
        u, i, j = clients[batch], items[batch], negatives[batch]

        def score(item: Array) -> Array:
            content = features[item] @ params["E"]
            factors = params["p"][u] * params["q"][item] + params["t"][u] * content
            return params["b"][item] + factors.sum(axis=1)

        squares = sum(
            jnp.square(params[name][rows]).sum()
            for name, rows in (("p", u), ("t", u), ("q", i), ("q", j))
        )
        ranking = jax.nn.softplus(score(j) - score(i)).mean()
        return ranking + penalty * squares / len(batch)

    def step(carry: tuple, batch: Array) -> tuple[tuple, None]:
        params, state = carry
        gradient = jax.grad(loss)(params, batch)
        updates, state = optax.adam(learning_rate).update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), order)[0]


@jax.jit
def _scores(
    params: Parameters, features: Float[Array, "items width"]
) -> Float[Array, "clients items"]:
    return params["b"] + params["p"] @ params["q"].T + params["t"] @ (features @ params["E"]).T
