"""A client's part of a warm round: what its history adds to the items' co-occurrence X^T X.

X has a row h of zeros and ones per client, so X^T X is the sum of h h^T over clients. A client
uploads either h h^T itself, or its rows of h (h^T V), V being what the server sends: then the sum
is X^T X V. It learns nothing in such a round, which needs no private state (METHOD "A spectral
first value").
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from fedvlr_jax.client.model import ClientData
from fedvlr_jax.client.update import ClientRates, LocalTraining, LocalUpdate, rows
from fedvlr_jax.protocol import Broadcast, Terms, Upload


def _begin(
    training: LocalTraining,  # noqa: ARG001 - there is nothing to begin
    sent: Broadcast,  # noqa: ARG001
    state: None,
    data: ClientData,  # noqa: ARG001
    key: Array,  # noqa: ARG001
) -> None:
    return state


def _epoch(
    training: LocalTraining,  # noqa: ARG001 - all is uploaded at the end
    sent: Broadcast,  # noqa: ARG001
    state: None,
    data: ClientData,  # noqa: ARG001
    rates: ClientRates,  # noqa: ARG001
    number: Int[Array, ""],  # noqa: ARG001
) -> tuple[None, Upload]:
    return state, Upload(None, None, jnp.zeros(()), jnp.zeros(()))


def _finish(
    training: LocalTraining,
    sent: Broadcast,
    state: None,
    data: ClientData,
    rates: ClientRates,  # noqa: ARG001
    key: Array,  # noqa: ARG001
) -> tuple[None, Upload]:
    n_items = len(sent.views)
    real = (data.history < n_items).astype(jnp.float32)
    if training.mode == "products":
        product = jnp.einsum("n,nvk->vk", real, rows(sent, data.history))
        # The last column sums up to how many clients have each item.
        row = jnp.pad(product, ((0, 0), (0, 1)), constant_values=1)
        sums = Terms(data.history, real[None], row[None])
    else:
        has = jnp.zeros(n_items).at[data.history].set(1, mode="drop")
        sums = Terms(data.history, real[None], has[None, None])
        if training.dense:  # the sum over a chunk of clients is then one product of matrices
            sums = Terms(None, has[None], has[None, None])
    # A client without history counts nothing.
    return state, Upload(sums, None, real.max(initial=0), jnp.zeros(()))


SPECTRAL = LocalUpdate(_begin, _epoch, _finish)
