"""The personal mixture-of-experts router: weighs the views by the client's own history.

METHOD "Forward": z_u is the mean over the history of the concatenated view rows, and
w_u = softmax(W2 relu(W1 z_u + b1) + b2), hidden width d.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float


class Router(nn.Module):
    """Two dense layers and a softmax over views; the last layer starts at zero (equal weights)."""

    n_views: int
    hidden: int

    @nn.compact
    def __call__(self, pooled: Float[Array, " pooled"]) -> Float[Array, " views"]:
        """View weights w_u, positive and summing to 1, from the pooled history z_u."""
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(pooled))
        logits = nn.Dense(self.n_views, kernel_init=nn.initializers.zeros, name="out")(hidden)
        return jax.nn.softmax(logits)


def pool(
    history_rows: Float[Array, "history views dim"], real: Bool[Array, " history"]
) -> Float[Array, " views*dim"]:
    """z_u: the mean of a history's view rows; places that are not `real` are padding."""
    total = jnp.where(real[:, None, None], history_rows, 0).sum(axis=0)
    return total.ravel() / jnp.maximum(real.sum(), 1)
