"""The devices' half of bringing a wave: every client's state comes to the client's row."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.chunks import for_each_row
from fedvlr_jax.simulation.federated_round import Federation
from fedvlr_jax.simulation.mesh import BY_CLIENT, EVERYWHERE
from fedvlr_jax.simulation.private import beginnings

# Values of `Sources.source` below every row of the wave before.
STORED, INITIAL = -1, -2
# Rows that are copied at a time: a few megabytes, and not too many steps for an accelerator.
_ROWS = 64


class Sources(NamedTuple):
    """Where the states of a wave's clients are.

    `source` of a row is its client's row in the wave before, on the same device (`recent`); or
    `STORED`: row r of `stored`; or `INITIAL`: the client has never taken part, or there is none.
    """

    source: Int[Array, " rows"]
    stored: Float[Array, "rows numbers"]
    recent: Float[Array, "rows numbers"]


def bring(
    federation: Federation,
    into: Float[Array, "rows numbers"],
    sources: Sources,
    client: Int[Array, " rows"],
    key: keys.Words,
) -> Float[Array, "rows numbers"]:
    """The states of a wave, `client` in each row; in rows without one is what `into` has there."""

    def on_device(into: Array, sources: Sources, client: Array, key: keys.Words) -> Array:
        beginning = beginnings(federation.training.model, key)
        source = sources.source

        def copied(chosen: Bool[Array, " rows"], found: Callable, into: Array) -> Array:
            def body(rows: Array, into: Array) -> Array:
                return into.at[rows].set(found(rows), mode="drop")

            return for_each_row(chosen, _ROWS, body, into)

        into = copied(source == STORED, lambda rows: _of(sources.stored, rows), into)
        into = copied(source >= 0, lambda rows: _of(sources.recent, _of(source, rows)), into)
        new = (source == INITIAL) & (client >= 0)
        return copied(new, lambda rows: beginning(_of(client, rows)), into)

    return jax.shard_map(
        on_device,
        mesh=federation.mesh,
        in_specs=(BY_CLIENT, BY_CLIENT, BY_CLIENT, EVERYWHERE),
        out_specs=BY_CLIENT,
        check_vma=False,
    )(into, sources, client, key)


def _of(array: Array, rows: Int[Array, " chunk"]) -> Array:
    return array.at[rows].get(mode="clip")
