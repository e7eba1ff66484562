"""Clipping of one client's upload, on the client, before anything leaves it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.client.whole import added_by_item
from fedvlr_jax.protocol import Rows, Terms, Upload


def clipped(upload: Upload, norm: Float[Array, ""]) -> Upload:
    """The upload with its gradient and `shared` scaled down to an L2 norm of at most `norm`.

    METHOD "Privacy options": the norm is that of the whole upload, over all rows, after the rows of
    one item are added up. Weight and loss stay as they are.

    Args:
        upload: all parts of a client's round, joined.
        norm: above 0.
    """
    gradient, shared = upload.gradient, upload.shared
    terms = isinstance(gradient, Terms)
    square = _square_of_terms(gradient) if terms else _square_of_rows(gradient)
    square += sum(jnp.sum(x * x) for x in jax.tree.leaves(shared))
    scale = norm / jnp.maximum(jnp.sqrt(square), norm)
    scaled = (
        gradient._replace(coefficients=scale * gradient.coefficients)
        if terms
        else gradient._replace(values=scale * gradient.values)
    )
    return upload._replace(gradient=scaled, shared=jax.tree.map(lambda x: scale * x, shared))


def _square_of_rows(gradient: Rows) -> Float[Array, ""]:
    """The squared norm of the gradient as a table of items: an item may stand in several places."""
    values = gradient.values.reshape(len(gradient.items), -1)
    return jnp.sum(jnp.square(added_by_item(gradient.items, values)[1]))


def _square_of_terms(gradient: Terms) -> Float[Array, ""]:
    """The same of terms: the sum over pairs of them, coefficients' product times directions'."""
    coefficients = gradient.coefficients
    directions = gradient.directions.reshape(len(coefficients), -1)
    if gradient.items is not None:
        coefficients = added_by_item(gradient.items, coefficients.T)[1].T
    return jnp.sum((coefficients @ coefficients.T) * (directions @ directions.T))
