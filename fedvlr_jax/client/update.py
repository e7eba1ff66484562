"""One client's round, written for one client: step 2 of METHOD "One round", accumulate mode.

(Broadcast, ClientState, ClientData, key) in, (ClientState, Upload) out, as three functions: a
client begins, runs its local epochs one by one, and finishes. Every epoch hands over its own part
of the upload, so no one ever holds the gradients of all epochs at once.

There are two ways to do it with equal results: `autodiff.py` for any head and optimizer, and
`closed_form.py` for plain SGD on a linear head, which is several times as fast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.client.model import ClientData, ClientModel, ClientState
from fedvlr_jax.client.negatives import sample_negatives
from fedvlr_jax.protocol import Broadcast, Upload

Work = Any  # what a client keeps from one local epoch to the next: a pytree of arrays


class ClientRates(NamedTuple):
    """Learning rates of a client's two private parts; traced, so they can change freely."""

    head: Float[Array, ""]
    router: Float[Array, ""]


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains: its model, local epochs A, negatives per positive, optimizer's name."""

    model: ClientModel
    epochs: int
    negatives: int
    optimizer: str


class LocalUpdate(NamedTuple):
    """One way to do a client's local training.

    Every local epoch draws new negatives, takes the gradients of the binary cross-entropy, steps
    router and head at once, and only accumulates the gradients of the view rows (they stay as
    sent). The optimizer's state is new in every round.

    `begin`: (training, sent, state, data) -> work.
    `epoch`: (training, sent, work, data, rates, key of the epoch) -> work, upload.
    `finish`: (training, sent, work, data, rates) -> state, upload. The round's upload is the sum
    of the epochs' uploads and this one.
    """

    begin: Callable[[LocalTraining, Broadcast, ClientState, ClientData], Work]
    epoch: Callable[
        [LocalTraining, Broadcast, Work, ClientData, ClientRates, Array], tuple[Work, Upload]
    ]
    finish: Callable[
        [LocalTraining, Broadcast, Work, ClientData, ClientRates], tuple[ClientState, Upload]
    ]


class Places(NamedTuple):
    """The samples of one local epoch: which history places are real, and what each counts.

    `share` is what one sample's loss counts in the epoch's mean; `weight` is the client's alpha_u
    before normalization over the cohort.
    """

    real: Bool[Array, " history"]
    share: Float[Array, ""]
    weight: Float[Array, ""]


def places(training: LocalTraining, sent: Broadcast, data: ClientData) -> Places:
    """The places of a client's history."""
    real = data.history < sent.views.shape[0]
    n_train = real.sum()
    samples = jnp.maximum(n_train, 1) * (1 + training.negatives)
    return Places(real, 1 / samples, training.model.backbone.weight(n_train))


def draw(
    training: LocalTraining, sent: Broadcast, data: ClientData, key: Array
) -> Int[Array, " drawn"]:
    """The negatives of one epoch, `training.negatives` for every place; `n_items` at padding."""
    n_items = sent.views.shape[0]
    drawn = sample_negatives(key, data.history, n_items, training.negatives)
    return jnp.where((data.history < n_items)[:, None], drawn, n_items).ravel()


def rows(sent: Broadcast, items: Int[Array, " n"]) -> Float[Array, "n views dim"]:
    """View rows of `items`; padding reads some real row, whose gradient is masked to zero."""
    return sent.views.at[items].get(mode="clip")


def scaled(updates: ClientState, rates: ClientRates) -> ClientState:
    """Updates made at rate 1 times the rate of their part."""
    return ClientState(
        router=jax.tree.map(lambda u: rates.router * u, updates.router),
        head=jax.tree.map(lambda u: rates.head * u, updates.head),
    )
