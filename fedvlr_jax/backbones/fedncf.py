"""FedNCF: neural collaborative filtering with a scoring network that all clients share.

Perifanis and Efraimidis 2022 (arXiv 2106.04405), after He et al. 2017 (arXiv 1708.05031), as METHOD
"Backbones" states it: s = W [GMF(p_u, x_i); MLP(q_u, x_i)] with the private user embeddings p_u and
q_u, GMF their elementwise product and an MLP of widths 2d, d, d/2, d/4.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fedvlr_jax.backbones import linear
from fedvlr_jax.backbones.base import Backbone, Head, Network

_INITIAL_SPREAD = 0.1  # of user embeddings


class _Pair(nn.Module):
    """A dense layer on [q; x] for many x and one q, whose product with W is the same for all."""

    width: int

    @nn.compact
    def __call__(
        self, q: Float[Array, " dim"], items: Float[Array, "n dim"]
    ) -> Float[Array, "n width"]:
        dim = len(q)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (2 * dim, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return items @ kernel[dim:] + (q @ kernel[:dim] + bias)


class _Scorer(nn.Module):
    """W [GMF(p, x); MLP(q, x)]."""

    @nn.compact
    def __call__(
        self, p: Float[Array, " dim"], q: Float[Array, " dim"], items: Float[Array, "n dim"]
    ) -> Float[Array, " n"]:
        dim = items.shape[1]
        hidden = nn.relu(_Pair(dim, name="Dense_0")(q, items))
        for number, width in enumerate((dim // 2, dim // 4), 1):
            hidden = nn.relu(nn.Dense(max(width, 1), name=f"Dense_{number}")(hidden))
        both = jnp.concatenate([p * items, hidden], axis=1)
        return nn.Dense(1, name="out")(both)[:, 0]


def init_head(key: Array, dim: int) -> Head:
    """p_u and q_u, normal with standard deviation 0.1, drawn per client."""
    p, q = _INITIAL_SPREAD * jax.random.normal(key, (2, dim))
    return {"p": p, "q": q}


def init_network(key: Array, dim: int) -> Network:
    """The scoring network, of Flax's default initial values (LeCun normal, biases zero)."""
    return _Scorer().init(key, jnp.zeros(dim), jnp.zeros(dim), jnp.zeros((1, dim)))


def score(network: Network, head: Head, items: Float[Array, "n dim"]) -> Float[Array, " n"]:
    """The network's score of every row of `items` for one client."""
    return _Scorer().apply(network, head["p"], head["q"], items)


FEDNCF = Backbone("fedncf", init_head, score, linear.equally, init_network=init_network)
