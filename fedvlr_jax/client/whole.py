"""One client's whole upload: its rows added up by item, and what an aggregation makes of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.aggregation import Aggregation, ClientGradient
from fedvlr_jax.protocol import Rows, Upload

_NO_ITEM = jnp.iinfo(jnp.int32).max


def changed(aggregation: Aggregation, upload: Upload, n_items: int) -> Upload:
    """The upload after `Aggregation.of_client`; weight and loss stay as they are.

    Args:
        aggregation: with such a function.
        upload: all parts of a client's round, joined.
        n_items: number of items.

    Raises:
        UserError: the function gives other shapes than it got.
    """
    items, rows = _rows(upload, n_items)
    real = (items < n_items)[:, None, None]
    scale = jnp.where(upload.weight > 0, upload.weight, 1)
    gradient = ClientGradient(jnp.where(real, rows, 0), upload.shared)
    found = aggregation.applied(aggregation.of_client, jax.tree.map(lambda x: x / scale, gradient))
    found = jax.tree.map(lambda x: upload.weight * x, found)
    rows = jnp.where(real, found.rows, 0)
    return upload._replace(gradient=Rows(items, rows), shared=found.shared)


def _rows(
    upload: Upload, n_items: int
) -> tuple[Int[Array, " places"], Float[Array, "places views dim"]]:
    """The gradient's rows, those of an item added up in one place."""
    gradient = upload.gradient
    if isinstance(gradient, Rows):
        items, rows = gradient
    else:
        items = gradient.items
        rows = jnp.einsum("tp,tvd->pvd", gradient.coefficients, gradient.directions)
    return (jnp.arange(n_items), rows) if items is None else added_by_item(items, rows)


def added_by_item(
    items: Int[Array, " places"], rows: Float[Array, "places *width"]
) -> tuple[Int[Array, " places"], Float[Array, "places *width"]]:
    """Every item once, with its rows added up; the places left over have no item, and zeros."""
    order = jnp.argsort(items)
    items = items[order]
    first = jnp.concatenate([jnp.zeros(1, bool), items[1:] != items[:-1]])
    place = jnp.cumsum(first)
    added = jax.ops.segment_sum(rows[order], place, num_segments=len(items))
    return jnp.full_like(items, _NO_ITEM).at[place].set(items), added
