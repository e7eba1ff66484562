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

from fedvlr_jax.client.model import ClientModel, ClientState

LAYOUT = 1  # of rows, as checkpoints tell it; 0 stands for those of before there were rows
TILE = 128
_FIRST = ".router['params']['hidden']['kernel']"


def row_numbers(model: ClientModel) -> int:
    """How many floats a client's row has: `model.private_numbers()`, filled up."""
    return -(-model.private_numbers() // TILE) * TILE


def flatten(state: ClientState) -> Float[Array, " numbers"]:
    """The row of one client's state."""
    leaves = jax.tree.leaves(state)
    parts = [leaves[number].ravel() for number in _order(state)]
    unused = -sum(part.size for part in parts) % TILE
    return jnp.concatenate([*parts, jnp.zeros(unused)])


def unflatten(model: ClientModel, row: Float[Array, " numbers"]) -> ClientState:
    """The state of one client from its row."""
    leaves, structure = jax.tree.flatten(model.initial_shapes)
    start, parts = 0, {}
    for number in _order(model.initial_shapes):
        shape, end = leaves[number].shape, start + leaves[number].size
        if start == 0 and len(shape) == 2 and row.size % shape[1] == 0:
            # The whole row takes the kernel's form before it is cut, so that nothing is copied.
            parts[number] = row.reshape(-1, shape[1])[: shape[0]]
        else:
            parts[number] = row[start:end].reshape(shape)
        start = end
    return jax.tree.unflatten(structure, [parts[number] for number in range(len(leaves))])


def _order(state: ClientState) -> list[int]:
    """Numbers of a state's leaves in the order of its row."""
    paths = [keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return sorted(range(len(paths)), key=lambda number: paths[number] != _FIRST)
