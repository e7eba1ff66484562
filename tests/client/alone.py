"""One client's round from begin to finish, as the simulation composes it for a chunk."""

import jax
import jax.numpy as jnp

from fedvlr_jax.client.model import ClientState
from fedvlr_jax.protocol import Upload


def new_state(model):
    """A client's private state before its first round."""
    return ClientState(model.init_router(jax.random.key(0)), model.init_head(jax.random.key(1)))


def local_round(way, training, sent, state, data, rates, key):
    """(state, upload) after all local epochs; the upload's parts stand one after the other.

    The history's rows come first, then each epoch's negatives.
    """
    work = way.begin(training, sent, state, data)
    parts = []
    for number in range(training.epochs):
        epoch_key = jax.random.fold_in(key, number)
        work, part = way.epoch(training, sent, work, data, rates, epoch_key)
        parts.append(part)
    state, last = way.finish(training, sent, work, data, rates)
    parts.insert(0, last)
    return state, Upload(
        items=jnp.concatenate([part.items for part in parts]),
        gradient=jnp.concatenate([part.gradient for part in parts]),
        weight=sum(part.weight for part in parts),
        loss=sum(part.loss for part in parts),
    )
