"""A two-layer router's steps of plain SGD, without its large first layer.

METHOD "The identity that makes it fast": the pooled history z is constant during a round, so an
epoch's step changes W1 by -lr outer(z, dh) and the pre-activation of the router's hidden layer by
-lr (z . z + 1) dh, where dh is the gradient of that pre-activation: the epochs never touch W1. It
is read once before them, and read and written once after, with

    W1 <- W1 - lr outer(z, sum_a dh_a)
    sum_a dL_a/dz = W1 (sum_a dh_a) - lr z sum_a <sum_{a' < a} dh_a', dh_a>
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedvlr_jax.protocol import Terms


class RouterSteps(NamedTuple):
    """A router between its local epochs; `stacked` is a view row laid flat, views*dim floats.

    `start` are its parameters before the round, of which the hidden layer stays as it is.
    `pre` is the hidden layer's pre-activation now, `moved` the sum of its gradients dh so far, and
    `crossed` the sum over epochs of <moved before the epoch, dh of the epoch>.
    """

    start: Any
    out: Any
    pooled: Float[Array, " stacked"]
    pre: Float[Array, " hidden"]
    moved: Float[Array, " hidden"]
    crossed: Float[Array, ""]

    @property
    def hidden(self) -> Float[Array, " hidden"]:
        """The hidden layer's activations now."""
        return jax.nn.relu(self.pre)

    @property
    def weights(self) -> Float[Array, " views"]:
        """The view weights w now."""
        return jax.nn.softmax(self.hidden @ self.out["kernel"] + self.out["bias"])

    def stepped(self, d_weights: Float[Array, " views"], rate: Float[Array, ""]) -> "RouterSteps":
        """After one step, given the loss's gradient by the view weights."""
        hidden, weights = self.hidden, self.weights
        d_logits = weights * (d_weights - weights @ d_weights)
        d_pre = jnp.where(self.pre > 0, self.out["kernel"] @ d_logits, 0)
        return self._replace(
            out={
                "kernel": self.out["kernel"] - rate * jnp.outer(hidden, d_logits),
                "bias": self.out["bias"] - rate * d_logits,
            },
            pre=self.pre - rate * (self.pooled @ self.pooled + 1) * d_pre,
            moved=self.moved + d_pre,
            crossed=self.crossed + self.moved @ d_pre,
        )

    def finished(self, rate: Float[Array, ""]) -> tuple[Any, Float[Array, " stacked"]]:
        """The parameters after the steps, and the sum over epochs of the gradient by z."""
        hidden = self.start["params"]["hidden"]
        d_pooled = hidden["kernel"] @ self.moved - rate * self.crossed * self.pooled
        stepped = {
            "kernel": hidden["kernel"] - rate * jnp.outer(self.pooled, self.moved),
            "bias": hidden["bias"] - rate * self.moved,
        }
        return {"params": {"hidden": stepped, "out": self.out}}, d_pooled


def begin(router: Any, pooled: Float[Array, " stacked"]) -> RouterSteps:
    """Before the first step, from a router's parameters and the pooled history z."""
    hidden, out = router["params"]["hidden"], router["params"]["out"]
    pre = pooled @ hidden["kernel"] + hidden["bias"]
    return RouterSteps(router, out, pooled, pre, jnp.zeros_like(pre), jnp.zeros(()))


def finish(
    router: RouterSteps | None,
    rate: Float[Array, ""],
    terms: Terms,
    real: Bool[Array, " places"] | Float[Array, " places"],
) -> tuple[Any, Terms]:
    """The parameters after the steps, and a gradient of rows with what goes through z.

    z is the mean over the history's `real` places. Without a router None, and the gradient alone.
    """
    if router is None:
        return None, terms
    parameters, d_pooled = router.finished(rate)
    share = real / jnp.maximum(real.sum(), 1)
    direction = d_pooled.reshape(1, *terms.directions.shape[1:])
    return parameters, Terms(
        terms.items,
        jnp.concatenate([terms.coefficients, share[None]]),
        jnp.concatenate([terms.directions, direction]),
    )
