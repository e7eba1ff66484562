"""A client's private state as one row of floats: the only place that knows where in it things are.

Rows are what devices, the host and checkpoints hold: a population's states are one array, of which
a chunk of clients is read by one gather and written by one scatter. A row is

    router's hidden kernel | all other parts, in the order of `jax.tree.leaves` | zeros

each part in row-major order. The kernel is nearly all of a state with a router and starts where a
row does. Zeros fill a row up to a multiple of `TILE`, the numbers that accelerators keep together:
a row that were no multiple would be padded, or laid out otherwise, by the compiler.

What this module changes makes older checkpoints unreadable: count `LAYOUT` up.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import keystr
from jaxtyping import Array, Float

from fedvlr_jax.backbones.base import Head
from fedvlr_jax.client.model import ClientModel, ClientState

LAYOUT = 1  # of rows, as checkpoints tell it; 0 stands for those of before there were rows
TILE = 128
_FIRST = ".router['params']['hidden']['kernel']"


def row_numbers(model: ClientModel) -> int:
    """How many floats a client's row has: `model.private_numbers()`, filled up."""
    return -(-model.private_numbers() // TILE) * TILE


def flatten(state: ClientState) -> Float[Array, " numbers"]:
    """The row of one client's state."""
    places = jax.tree.leaves(_places(state))
    leaves = sorted(zip(jax.tree.leaves(state), places, strict=True), key=lambda x: x[1].start)
    unused = -sum(leaf.size for leaf, _ in leaves) % TILE
    return jnp.concatenate([*(leaf.ravel() for leaf, _ in leaves), jnp.zeros(unused)])


def unflatten(model: ClientModel, row: Float[Array, " numbers"]) -> ClientState:
    """The state of one client from its row."""

    def part(leaf: jax.ShapeDtypeStruct, place: slice) -> Array:
        shape = leaf.shape
        if place.start == 0 and len(shape) == 2 and row.size % shape[1] == 0:
            # The whole row takes the kernel's form before it is cut, so that nothing is copied.
            return row.reshape(-1, shape[1])[: shape[0]]
        return row[place].reshape(shape)

    return jax.tree.map(part, model.initial_shapes, _places(model.initial_shapes))


def with_heads(
    rows: Float[Array, "clients numbers"], model: ClientModel, heads: Head
) -> Float[Array, "clients numbers"]:
    """Rows of some clients with other heads, which are stacked."""
    places = _places(model.initial_shapes).head
    for leaf, place in zip(jax.tree.leaves(heads), jax.tree.leaves(places), strict=True):
        rows = rows.at[:, place].set(leaf.reshape(len(rows), -1))
    return rows


def _places(state: ClientState) -> ClientState:
    """Where in a row the parts of a state stand: slices in the structure of the state."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    order = sorted(range(len(leaves)), key=lambda number: keystr(leaves[number][0]) != _FIRST)
    places, start = {}, 0
    for number in order:
        end = start + leaves[number][1].size
        places[number], start = slice(start, end), end
    return jax.tree.unflatten(structure, [places[number] for number in range(len(leaves))])
