"""A client's part of a pass of alternating least squares: what it adds to its items' equations.

The client solves its head q for ID embeddings D alone, which no private state is needed for, and
adds to the sums of each item of its history q, q q^T and 1 (server/alternating.py).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.client.model import ClientData
from fedvlr_jax.client.normal_equations import equations, solution
from fedvlr_jax.client.update import ClientRates, LocalTraining, LocalUpdate, rows
from fedvlr_jax.protocol import Broadcast, Terms, Upload


def _begin(
    training: LocalTraining,
    sent: Broadcast,
    state: None,  # noqa: ARG001 - a head is solved anew
    data: ClientData,
    key: Array,  # noqa: ARG001
) -> Float[Array, " dim"]:
    real = data.history < len(sent.views)
    model = training.model
    history_rows = rows(sent, data.history)
    found = equations(model, sent.least_squares, model.equal_weights, history_rows, real)
    return solution(found)


def _epoch(
    training: LocalTraining,  # noqa: ARG001 - all is uploaded at the end
    sent: Broadcast,  # noqa: ARG001
    query: Float[Array, " dim"],
    data: ClientData,  # noqa: ARG001
    rates: ClientRates,  # noqa: ARG001
    number: Int[Array, ""],  # noqa: ARG001
) -> tuple[Float[Array, " dim"], Upload]:
    return query, Upload(None, None, jnp.zeros(()), jnp.zeros(()))


def _finish(
    training: LocalTraining,  # noqa: ARG001
    sent: Broadcast,
    query: Float[Array, " dim"],
    data: ClientData,
    rates: ClientRates,  # noqa: ARG001
    key: Array,  # noqa: ARG001
) -> tuple[None, Upload]:
    real = (data.history < len(sent.views)).astype(jnp.float32)
    upper = jnp.triu_indices(len(query))
    numbers = jnp.concatenate([query, jnp.outer(query, query)[upper], jnp.ones(1)])
    sums = Terms(data.history, real[None], numbers[None, None])
    # A client without history counts nothing.
    return None, Upload(sums, None, real.max(initial=0), jnp.zeros(()))


ALTERNATING = LocalUpdate(_begin, _epoch, _finish)
