"""FedRAP: item vectors in two parts, one shared and one that is the client's own.

Li et al. 2024 (arXiv 2301.09109), as METHOD "Backbones" states it:
s = theta_u . (x_i + P_u[i]) + b_u. P_u starts at zero; the client's loss has the term
-a MSE(P_u, x) over the batch's rows, which keeps the parts apart, the server's b L1(D). Both are
means, as in the authors' code, and ramp up with the rounds as tanh(round/10) to a = 1e-4 and
b = 1e-2.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedvlr_jax.backbones import linear
from fedvlr_jax.backbones.base import Backbone, OwnRows

_APART, _SPARSE = 1e-4, 1e-2
_RAMP = 10.0  # rounds


def combine(
    items: Float[Array, "n dim"],
    own: Float[Array, "n dim"],
    trained: Bool[Array, ""],  # noqa: ARG001 - before training, the own part is zero
) -> Float[Array, "n dim"]:
    """The sum of the shared and the own part."""
    return items + own


def penalty(
    items: Float[Array, "n dim"], own: Float[Array, "n dim"], number: Array
) -> Float[Array, " n"]:
    """-a MSE(P_u[i], x_i) of every sample: the two parts are kept apart."""
    return -_APART * _ramp(number) * jnp.square(own - items).mean(axis=-1)


def server_penalty(embedding: Float[Array, "items d"], number: Array) -> Float[Array, ""]:
    """The term b L1(D): shared embeddings are kept sparse."""
    return _SPARSE * _ramp(number) * jnp.abs(embedding).mean()


def _ramp(number: Array) -> Float[Array, ""]:
    return jnp.tanh(number / _RAMP)


FEDRAP = Backbone(
    "fedrap",
    linear.init_head,
    linear.score,
    linear.equally,
    linear=linear.parameters,
    own_rows=OwnRows(combine, with_head=True, penalty=penalty),
    server_penalty=server_penalty,
)
