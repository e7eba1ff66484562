"""The secure aggregation: uploads of a chunk of clients are added to the cohort's sums.

There is one sum for every time of arrival: in the round, and a round late where that can happen.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax.protocol import CohortSum, Rows, Squares, Terms, Upload


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
        # No products, so that counts stay exact at any precision of those.
        weight=totals.weight + (uploads.weight[:, None] * arrives).sum(axis=0),
        loss=totals.loss + (uploads.loss[:, None] * arrives).sum(axis=0),
        squares=_squares(totals.squares, uploads.squares, arrives),
    )


def _squares(
    total: Float[Array, "arrivals stacked stacked"] | None,
    uploaded: Squares | Float[Array, "clients stacked stacked"] | None,
    arrives: Float[Array, "clients arrivals"],
) -> Float[Array, "arrivals stacked stacked"] | None:
    """The sum of the uploaded matrices: one product of matrices for a chunk."""
    if uploaded is None:
        return total
    if not isinstance(uploaded, Squares):
        return total + jnp.einsum("csr,ca->asr", uploaded, arrives)
    weighed = jnp.einsum("ct,cts,ca->acts", *uploaded, arrives)
    return total + jnp.einsum("acts,ctr->asr", weighed, uploaded.directions)


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
        split = jnp.einsum("cts,ca->ctas", directions.reshape(*directions.shape[:2], -1), arrives)
        return total + jnp.einsum("cti,ctas->ais", coefficients, split)
    if coefficients.shape[1] == 1:  # no product of matrices, but one that the sum below takes in
        rows = coefficients[:, 0, :, None, None] * directions
    else:
        rows = jnp.einsum("ctp,ctvd->cpvd", coefficients, directions)
    return _with_rows(total, arrival, uploaded.items, rows)


def _with_rows(
    total: Float[Array, "arrivals items stacked"],
    arrival: Int[Array, " clients"],
    items: Int[Array, "clients places"],
    rows: Float[Array, "clients places views dim"],
) -> Float[Array, "arrivals items stacked"]:
    n_arrivals, n_items, _ = total.shape
    table = total.reshape(-1, *rows.shape[2:])
    if n_arrivals > 1:
        items = jnp.where(items < n_items, arrival[:, None] * n_items + items, len(table))
    table = jax.lax.platform_dependent(
        table, items, rows, default=_in_order, cuda=in_fixed_point, rocm=in_fixed_point
    )
    return table.reshape(total.shape)


def _in_order(
    table: Float[Array, "items views dim"],
    items: Int[Array, "*places"],
    rows: Float[Array, "*places views dim"],
) -> Float[Array, "items views dim"]:
    """The table after rows are added to those of their items, one after the other."""
    return table.at[items].add(rows, mode="drop")


def in_fixed_point(
    table: Float[Array, "items views dim"],
    items: Int[Array, "*places"],
    rows: Float[Array, "*places views dim"],
) -> Float[Array, "items views dim"]:
    """The same, where a device adds in whatever order its threads come: sums of whole numbers.

    These are the same in every order. A row is split into a whole number of units and of parts of
    a unit, both so small that no sum leaves 32 bits; what is below a part is lost, which is less
    than the largest number of the rows times their number squared over 2**60.
    """
    room = 30 - (items.size - 1).bit_length()  # bits that a single number may have
    _, bits = jnp.frexp(jnp.abs(rows).max())
    scaled = jnp.ldexp(rows, room - bits)
    units = jnp.floor(scaled)
    parts = jnp.floor(jnp.ldexp(scaled - units, room))

    def added(numbers: Float[Array, "*places views dim"]) -> Float[Array, "items views dim"]:
        nothing = jnp.zeros(table.shape, jnp.int32)
        return nothing.at[items].add(numbers.astype(jnp.int32), mode="drop").astype(table.dtype)

    return table + jnp.ldexp(added(units) + jnp.ldexp(added(parts), -room), bits - room)
