"""A client's local training in client mode `local`: it moves its own copy of what is shared.

Classic FedAvg (McMahan et al. 2017, arXiv 1602.05629) for METHOD's model: besides its private
parameters the client steps copies of D, gamma and the backbone's network by plain SGD, fuses the
views of its samples with them in every epoch, and uploads how far they moved. Only rows of D that a
sample touches can move, so only those are copied.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.autodiff import optimizer, stepped, tuned
from fedvlr_jax.client.model import ClientData, ClientState
from fedvlr_jax.client.objective import Samples, mean_loss
from fedvlr_jax.client.update import (
    ClientRates,
    LocalTraining,
    LocalUpdate,
    Negatives,
    draw,
    places,
)
from fedvlr_jax.fusion.operators import EMBEDDING, Features
from fedvlr_jax.protocol import Broadcast, Rows, Upload


class _Copies(NamedTuple):
    """The client's copies: of some rows of D, of gamma and of the backbone's network."""

    embedding: Float[Array, "touched dim"]
    gamma: Any
    network: Any


class _Work(NamedTuple):
    """Private parameters, the optimizer's state, the touched items (ascending) and the copies."""

    drawn: Negatives
    private: ClientState
    optimizer: optax.OptState
    touched: Int[Array, " touched"]
    copies: _Copies


def _begin(
    training: LocalTraining, sent: Broadcast, state: ClientState, data: ClientData, key: Array
) -> _Work:
    drawn = draw(training, sent, data, key)
    n_items = sent.views.shape[0]
    every = jnp.concatenate([data.history, drawn.items.ravel()])
    touched = jnp.unique(every, size=len(every), fill_value=n_items)
    first = optimizer(training).init(state)
    return _Work(drawn, state, first, touched, _sent(sent, touched))


def _sent(sent: Broadcast, touched: Int[Array, " touched"]) -> _Copies:
    """What the server sent of all that the client copies."""
    gamma = dict(sent.operators.params["params"])
    embedding = gamma.pop(EMBEDDING)
    return _Copies(embedding.at[touched].get(mode="clip"), gamma, sent.network)


def _epoch(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    number: Int[Array, ""],
) -> tuple[_Work, Upload]:
    here = places(training, sent, data)
    drawn = work.drawn.of(number)
    items = jnp.concatenate([data.history, drawn.items])
    features = jax.tree.map(lambda x: x.at[items].get(mode="clip"), sent.operators.features)
    place = jnp.searchsorted(work.touched, items)

    def loss(private: ClientState, copies: _Copies) -> Float[Array, ""]:
        fused = _fused(training, copies, place, features)
        positives, negatives = jnp.split(fused, [len(data.history)])
        samples = Samples(positives, negatives, drawn.slots, drawn.weights)
        return mean_loss(training.model, here, private, copies.network, samples, sent.round)

    value, (g_private, g_copies) = jax.value_and_grad(loss, argnums=(0, 1))(
        work.private, work.copies
    )
    private, state = stepped(training, here, work.private, g_private, work.optimizer, rates)
    copies = jax.tree.map(lambda p, g: p - rates.shared * g, work.copies, g_copies)
    loss_now = here.weight * value / training.epochs
    upload = Upload(None, None, jnp.zeros(()), loss_now)
    return _Work(work.drawn, private, state, work.touched, copies), upload


def _fused(
    training: LocalTraining, copies: _Copies, place: Int[Array, " n"], features: Features
) -> Float[Array, "n views dim"]:
    """Views of some items, fused by the client's copies; `place` of each among the touched."""
    fusion = training.fusion.clone(n_items=len(place))
    params = {EMBEDDING: copies.embedding[place], **copies.gamma}
    return fusion.apply({"params": params}, features)


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    work: _Work,
    data: ClientData,
    rates: ClientRates,
    key: Array,
) -> tuple[ClientState, Upload]:
    weight = places(training, sent, data).weight
    moved = jax.tree.map(
        lambda before, after: weight * (before - after), _sent(sent, work.touched), work.copies
    )
    upload = Upload(
        gradient=Rows(work.touched, moved.embedding[:, None]),
        shared={"network": moved.network, "gamma": moved.gamma},
        weight=weight,
        loss=jnp.zeros(()),
    )
    return tuned(training, sent, work.private, data, rates, key), upload


LOCAL = LocalUpdate(_begin, _epoch, _finish)
