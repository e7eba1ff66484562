"""PFedRec: a private linear head, and item vectors that every client fine-tunes for itself.

Zhang et al. 2023 (arXiv 2301.08143), as METHOD "Backbones" states it: after the head's epochs the
client fine-tunes its copy of the touched item vectors; they serve its own scoring until it is
sampled again, and start from the broadcast views each time.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedvlr_jax.backbones import linear
from fedvlr_jax.backbones.base import Backbone, OwnRows


def combine(
    items: Float[Array, "n dim"], own: Float[Array, "n dim"], trained: Bool[Array, ""]
) -> Float[Array, "n dim"]:
    """The client's own vectors, once it has some."""
    return jnp.where(trained, own, items)


PFEDREC = Backbone(
    "pfedrec",
    linear.init_head,
    linear.score,
    linear.equally,
    linear=linear.parameters,
    own_rows=OwnRows(combine, with_head=False),
)
