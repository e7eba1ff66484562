"""One client's whole upload: its parts joined, and what an aggregation makes of it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.aggregation import Aggregation, ClientGradient
from fedvlr_jax.protocol import Rows, Terms, Upload

_NO_ITEM = jnp.iinfo(jnp.int32).max


def joined(parts: Upload, last: Upload) -> Upload:
    """The upload of a whole round from the epochs' parts, which are stacked, and the last one."""
    shared = [
        part
        for part in (last.shared, jax.tree.map(lambda x: x.sum(axis=0), parts.shared))
        if part is not None
    ]
    return Upload(
        gradient=_joined(parts.gradient, last.gradient),
        shared=jax.tree.map(lambda *x: sum(x), *shared) if shared else None,
        weight=last.weight + parts.weight.sum(),
        loss=last.loss + parts.loss.sum(),
        squares=last.squares,
    )


def _joined(parts: Rows | Terms | None, last: Rows | Terms) -> Rows | Terms:
    """The last part of a gradient and the epochs', which are stacked: the last one's places first.

    Terms of all items need no new places. The others get the places of all parts, with
    coefficients of 0 where a term is of another part.
    """
    if parts is None:
        return last
    if isinstance(last, Rows):
        items, values = parts
        return Rows(
            jnp.concatenate([last.items, items.ravel()]),
            jnp.concatenate([last.values, values.reshape(-1, *values.shape[2:])]),
        )
    coefficients = [last.coefficients, *parts.coefficients]
    directions = jnp.concatenate([last.directions, *parts.directions])
    if last.items is None:
        return Terms(None, jnp.concatenate(coefficients), directions)
    items = jnp.concatenate([last.items, parts.items.ravel()])
    return Terms(items, jax.scipy.linalg.block_diag(*coefficients), directions)


def changed(aggregation: Aggregation, upload: Upload, n_items: int) -> Upload:
    """The upload after `Aggregation.of_client`; weight and loss stay as they are.

    Args:
        aggregation: with such a function.
        upload: all parts of a client's round, joined.
        n_items: number of items.

    Raises:
        UserError: the function gives other shapes than it got.
    """
    items, rows = rows_by_item(upload, n_items)
    real = (items < n_items)[:, None, None]
    scale = jnp.where(upload.weight > 0, upload.weight, 1)
    gradient = ClientGradient(jnp.where(real, rows, 0), upload.shared)
    found = aggregation.applied(aggregation.of_client, jax.tree.map(lambda x: x / scale, gradient))
    found = jax.tree.map(lambda x: upload.weight * x, found)
    rows = jnp.where(real, found.rows, 0)
    return upload._replace(gradient=Rows(items, rows), shared=found.shared)


def rows_by_item(
    upload: Upload, n_items: int
) -> tuple[Int[Array, " places"], Float[Array, "places views dim"]]:
    """The gradient's rows, those of an item added up in one place.

    Places without an item have a number from `n_items` on.
    """
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
