"""Clipping of one client's upload, on the client, before anything leaves it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.protocol import Upload


def clipped(upload: Upload, norm: Float[Array, ""]) -> Upload:
    """The upload with its gradient and `shared` scaled down to an L2 norm of at most `norm`.

    METHOD "Privacy options": the norm is that of the whole upload, over all rows, after the rows of
    one item are added up. Weight and loss stay as they are.

    Args:
        upload: all parts of a client's round, joined.
        norm: above 0.
    """
    square = _row_squares(upload) + sum(jnp.sum(x * x) for x in jax.tree.leaves(upload.shared))
    scale = norm / jnp.maximum(jnp.sqrt(square), norm)
    return upload._replace(
        gradient=scale * upload.gradient,
        shared=jax.tree.map(lambda x: scale * x, upload.shared),
    )


def _row_squares(upload: Upload) -> Float[Array, ""]:
    """The squared norm of the gradient as a table of items: an item may stand in several places."""
    order = jnp.argsort(upload.items)
    items = upload.items[order]
    first = jnp.concatenate([jnp.zeros(1, bool), items[1:] != items[:-1]])
    rows = upload.gradient[order].reshape(len(items), -1)
    added = jax.ops.segment_sum(rows, jnp.cumsum(first), num_segments=len(items))
    return jnp.sum(added * added)
