"""FedAvg: shared item embeddings, a private linear head, means weighted by train samples.

McMahan et al. 2017 (arXiv 1602.05629), as METHOD "Backbones" states it for recommendation:
s = theta_u . x_i + b_u.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.backbones.base import Backbone, Head

# Initial scores of layer-normed items have this standard deviation. Of 0, 0.1, 0.3, 1 and 2 it was
# best on KU's validation split.
_INITIAL_SPREAD = 0.3


def init_head(key: Array, dim: int) -> Head:
    """theta_u normal with standard deviation 0.3/sqrt(dim), drawn per client; b_u zero."""
    theta = _INITIAL_SPREAD * jax.random.normal(key, (dim,)) / jnp.sqrt(dim)
    return {"theta": theta, "bias": jnp.zeros(())}


def score(head: Head, items: Float[Array, "n dim"]) -> Float[Array, " n"]:
    """theta_u . x + b_u for every row x of `items`."""
    return items @ head["theta"] + head["bias"]


def weight(n_train: Array) -> Float[Array, ""]:
    """The number of train samples."""
    return n_train.astype(jnp.float32)


def linear(head: Head) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
    """(theta_u, b_u)."""
    return head["theta"], head["bias"]


FEDAVG = Backbone("fedavg", init_head, score, weight, linear)
