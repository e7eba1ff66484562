"""One client's round, written for one client: step 2 of METHOD "One round".

(Broadcast, ClientState, ClientData, key) in, (ClientState, Upload) out, as three functions: a
client begins, runs its local epochs one by one, and finishes. Every epoch hands over its own part
of the upload, so no one ever holds the gradients of all epochs at once.

There are several ways to do it (`ways.py`): `autodiff.py` for any backbone and optimizer,
`closed_form.py` for plain SGD on a linear head, with equal results and several times as fast,
`least_squares.py` for a linear head that is solved, and `local.py` for client mode `local`. In warm
rounds clients train nothing, and `spectral.py` and `alternating.py` say what they upload.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.aggregation import MEAN, Aggregation
from fedvlr_jax.client.model import ClientData, ClientModel
from fedvlr_jax.client.negatives import counted, sample_negatives, sample_slots
from fedvlr_jax.fusion.operators import Fusion
from fedvlr_jax.protocol import Broadcast, Upload

Work = Any  # what a client keeps from one local epoch to the next: a pytree of arrays


class ClientRates(NamedTuple):
    """Learning rates of what a client steps by itself; traced, so they can change freely.

    `own` is of its own item vectors, per sample; `shared` of its copies in client mode `local`.
    `clip` is the L2 norm that its upload is clipped to, where it is.
    """

    head: Float[Array, ""]
    router: Float[Array, ""]
    own: Float[Array, ""]
    shared: Float[Array, ""]
    clip: Float[Array, ""]


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains.

    Attributes:
        model: the client's model.
        epochs: local epochs A.
        negatives: per positive and epoch.
        optimizer: optax's name of the optimizer of everything private.
        fusion: the server's model, which clients in mode "local" apply by themselves.
        mode: "accumulate" or "local", or what is summed in warm rounds, "pairs", "products" or
            "items".
        clipped: whether uploads are clipped.
        expected: whether negatives are taken in expectation instead of drawn.
        dense: whether a linear head scores all items at once, instead of its samples' rows alone;
            in warm rounds whether pairs are uploaded so.
        aggregation: what may change a client's upload.
        exact: whether a head is the solution of a least-squares problem, instead of being stepped.
    """

    model: ClientModel
    epochs: int
    negatives: int
    optimizer: str
    fusion: Fusion | None = None
    mode: str = "accumulate"
    clipped: bool = False
    expected: bool = False
    dense: bool = False
    aggregation: Aggregation = MEAN
    exact: bool = False

    @property
    def by_item(self) -> bool:
        """Whether what changes an upload needs all rows of items one by one."""
        return self.clipped or self.aggregation.of_client is not None

    @property
    def held(self) -> bool:
        """Whether a client's upload is held until all of it is there, as what changes it needs."""
        return self.by_item or self.model.compression is not None


class LocalUpdate(NamedTuple):
    """One way to do a client's local training.

    Every local epoch takes the gradients of the binary cross-entropy on its own negatives and steps
    everything private at once. The optimizer's state is new in every round.

    `begin`: (training, sent, state, data, key of the round) -> work.
    `epoch`: (training, sent, work, data, rates, number of the epoch) -> work, upload.
    `finish`: (training, sent, work, data, rates, key of the round) -> state, upload. The round's
    upload is the sum of the epochs' uploads and this one.
    """

    begin: Callable[..., Work]
    epoch: Callable[..., tuple[Work, Upload]]
    finish: Callable[..., tuple[Any, Upload]]


class Places(NamedTuple):
    """The samples of one local epoch: which history places are real, and what each counts.

    `share` is what one sample's loss counts in the epoch's mean; `weight` is the client's alpha_u
    before normalization over the cohort.
    """

    real: Bool[Array, " history"]
    share: Float[Array, ""]
    weight: Float[Array, ""]


class Negatives(NamedTuple):
    """Negatives: items, `n_items` at padding, and the slots of their own vectors.

    `weights` is how often each counts in an epoch, 0 where it is none. Without a pool there are no
    slots. Negatives in expectation are the same in all epochs, and have no axis of epochs.
    """

    items: Int[Array, "*epochs drawn"]
    slots: Int[Array, "*epochs drawn"] | None
    weights: Float[Array, " drawn"]

    def of(self, number: Int[Array, ""] | int) -> "Negatives":
        """The negatives of one epoch."""
        if self.items.ndim == 1:
            return self
        slots = None if self.slots is None else self.slots[number]
        return Negatives(self.items[number], slots, self.weights)


def places(training: LocalTraining, sent: Broadcast, data: ClientData) -> Places:
    """The places of a client's history."""
    real = data.history < sent.views.shape[0]
    n_train = real.sum()
    samples = jnp.maximum(n_train, 1) * (1 + training.negatives)
    return Places(real, 1 / samples, training.model.backbone.weight(n_train))


def draw(
    training: LocalTraining, sent: Broadcast, data: ClientData, key: Array, first: int = 0
) -> Negatives:
    """The negatives of all epochs, `training.negatives` for every place, or their expectation.

    n positives with K uniform negatives each meet an item that is none of theirs K n / (I - n)
    times on average, I being the number of all items: that is its weight in expectation. With a
    pool its items stand for the I - n.

    Epochs draw by keys of their own. Drawing for all at once costs a fraction of drawing for one
    after the other, because JAX's generator is a loop of many small operations on a CPU.

    Args:
        training: how the client trains.
        sent: what the server sent.
        data: the client's data.
        key: of the client and round.
        first: number of the first epoch.
    """
    n_items, width = sent.views.shape[0], len(data.history)
    real = data.history < n_items
    if training.expected:
        items, slots = data.pool, None
        if items is None:
            items = jnp.arange(n_items)
            candidates = counted(data.history, n_items) == 0
        else:
            slots, candidates = jnp.arange(len(items)), items < n_items
        weight = training.negatives * real.sum() / candidates.sum()
        return Negatives(items, slots, jnp.where(candidates, weight, 0))

    def of_epoch(number: Array) -> tuple[Array, Array | None]:
        own, slots = jax.random.fold_in(key, number), None
        if data.pool is None:
            items = sample_negatives(own, data.history, n_items, training.negatives)
        else:
            slots = sample_slots(own, data.pool, n_items, width, training.negatives)
            items, slots = data.pool[slots], slots.ravel()
        return jnp.where(real[:, None], items, n_items).ravel(), slots

    items, slots = jax.vmap(of_epoch)(first + jnp.arange(training.epochs))
    return Negatives(items, slots, jnp.repeat(real, training.negatives).astype(jnp.float32))


def rows(sent: Broadcast, items: Int[Array, " n"]) -> Float[Array, "n views dim"]:
    """View rows of `items`; padding reads some real row, whose gradient is masked to zero."""
    return sent.views.at[items].get(mode="clip")


def flat(rows: Float[Array, "n views dim"]) -> Float[Array, "n stacked"]:
    """View rows with all views of a row laid flat."""
    return rows.reshape(len(rows), -1)
