"""What one client alone is given."""

import jax
import jax.numpy as jnp
import numpy as np

from fedvlr_jax.client.update import ClientRates, flat
from fedvlr_jax.client.whole import joined
from fedvlr_jax.protocol import Broadcast, Rows


def new_state(model):
    """A client's private state before its first round."""
    return model.init(jax.random.key(0), jax.random.key(1))


def sent(views, network=None):
    """Views and the backbone's network as the server sends them in the first round."""
    return Broadcast(jnp.asarray(views, jnp.float32), network, jnp.int32(0))


def rates(head, router):
    """Learning rates of a client that has nothing but a head and a router."""
    return ClientRates(*(jnp.float32(rate) for rate in (head, router, 0, 0, 0)))


def table(upload, n_items):
    """The upload's gradient by item, added up row by row."""
    gradient = upload.gradient
    if isinstance(gradient, Rows):
        items, rows = np.asarray(gradient.items), np.asarray(gradient.values)
        rows = rows.reshape(len(items), -1)
    else:
        rows = np.asarray(gradient.coefficients).T @ flat(gradient.directions)
        items = np.arange(n_items) if gradient.items is None else np.asarray(gradient.items)
    found = np.zeros((n_items + 1, rows.shape[1]))
    for item, row in zip(items, rows, strict=True):
        found[item] += row
    return found[:n_items]


def whole_round(way, training, sent, state, data, rates, key):
    """A client's whole round by one way of doing it: its state after it, its upload joined."""

    def epoch(work, number):
        return way.epoch(training, sent, work, data, rates, number)

    work = way.begin(training, sent, state, data, key)
    work, parts = jax.lax.scan(epoch, work, jnp.arange(training.epochs))
    state, last = way.finish(training, sent, work, data, rates, key)
    return state, joined(parts, last)
