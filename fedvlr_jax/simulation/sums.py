"""The secure aggregation: uploads of a chunk of clients are added to the cohort's sums.

There is one sum for every time of arrival: in the round, and a round late where that can happen.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.protocol import CohortSum, Rows, Terms, Upload


def added(totals: CohortSum, uploads: Upload, arrival: Int[Array, " clients"]) -> CohortSum:
    """The sums after the uploads of a chunk of clients.

    Args:
        totals: stacked by arrival.
        uploads: a part of the clients', stacked by client.
        arrival: of each client's upload, which of the sums it belongs to.
    """
    n_arrivals = len(totals.weight)
    arrives = jax.nn.one_hot(arrival, n_arrivals)
    shared = totals.shared
    if uploads.shared is not None:
        # As a product: XLA's sum over a leading axis is several times slower on a CPU.
        shared = jax.tree.map(
            lambda x, y: x + jnp.tensordot(arrives, y, (0, 0)), shared, uploads.shared
        )
    return CohortSum(
        gradient=_gradient(totals.gradient, uploads.gradient, arrival, arrives),
        shared=shared,
        weight=totals.weight + uploads.weight @ arrives,
        loss=totals.loss + uploads.loss @ arrives,
    )


def _gradient(
    total: Float[Array, "arrivals items stacked"],
    uploaded: Rows | Terms | None,
    arrival: Int[Array, " clients"],
    arrives: Float[Array, "clients arrivals"],
) -> Float[Array, "arrivals items stacked"]:
    if uploaded is None:
        return total
    if isinstance(uploaded, Rows):
        return _with_rows(total, arrival, uploaded.items, uploaded.values)
    coefficients, directions = uploaded.coefficients, uploaded.directions
    if not coefficients.size:
        return total
    if uploaded.items is None:
        # All terms of all clients in one product.
        split = jnp.einsum("cts,ca->ctas", directions, arrives)
        return total + jnp.einsum("cti,ctas->ais", coefficients, split)
    if coefficients.shape[1] == 1:  # no product of matrices, but one that the sum below takes in
        rows = coefficients[:, 0, :, None] * directions
    else:
        rows = jnp.einsum("ctp,cts->cps", coefficients, directions)
    return _with_rows(total, arrival, uploaded.items, rows)


def _with_rows(
    total: Float[Array, "arrivals items stacked"],
    arrival: Int[Array, " clients"],
    items: Int[Array, "clients places"],
    rows: Float[Array, "clients places stacked"],
) -> Float[Array, "arrivals items stacked"]:
    n_arrivals, n_items, width = total.shape
    table = total.reshape(-1, width)
    if n_arrivals > 1:
        items = jnp.where(items < n_items, arrival[:, None] * n_items + items, len(table))
    return table.at[items].add(rows, mode="drop").reshape(total.shape)
