"""The server's half of a pass of alternating least squares: ID embeddings solved, item by item.

A pass over the clients sums up for every item i, over the clients u that have it, their heads q_u
(client/alternating.py). With M_i the sum of q_u q_u^T, P_i the number of these clients and c/I the
weight of a client's unobserved items (`LeastSquares.unobserved`), its embedding D_i is then

    (M_i + c/I sum_k M_k + l s_i identity)^-1 sum_u q_u,    s_i = P_i + c/I sum_k P_k

which minimizes the sum of the clients' losses, each times its number of train items, and l s_i
|D_i|^2: the items' half of iALS (Hu et al. 2008; a penalty that grows with the item's weight as in
Rendle et al. 2021). Heads and items are solved in turn for as many passes as there are.

Where people follow what items look like, and hardly one another, embeddings that fit everybody's
history rank worse than those of the spectral start. So the run compares both on validation after
the last pass, and goes back if the passes did not help (`undone`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.fusion.operators import EMBEDDING, Features
from fedvlr_jax.linear_algebra import inverse
from fedvlr_jax.protocol import Broadcast, CohortSum, LeastSquares
from fedvlr_jax.server import spectral
from fedvlr_jax.server.aggregate import (
    Server,
    ServerRates,
    ServerState,
    Shared,
    Solved,
    Warmed,
)

_ROWS = 256  # items that are solved together: bounds memory
_TOLERANCE = 1e-6  # of what is left of an item's equations, relative to their right-hand sides


def numbers(dim: int) -> int:
    """How many numbers there are of an item: sum of q, upper half of that of q q^T, and P_i."""
    return dim + dim * (dim + 1) // 2 + 1


def init(server: Server, warmed: Warmed, params: Any) -> Warmed:
    """What rounds before have come to, with the sums of nothing; `params` are D and gamma."""
    n_items, dim = server.fusion.n_items, server.fusion.dim
    solved = Solved(jnp.zeros(n_items), jnp.zeros((dim, dim)))
    sums = None
    if server.warm.rounds > server.warm.passes:
        sums = jnp.zeros((n_items, numbers(dim)))
    return warmed._replace(equations=sums, solved=solved, before=jax.tree.map(jnp.copy, params))


def undone(state: ServerState) -> ServerState:
    """The server's state as if there had been no pass."""
    warmed, params = state.warmed, state.params
    nothing = jax.tree.map(jnp.zeros_like, warmed.solved)
    return state._replace(
        params=params._replace(fusion=warmed.before), warmed=warmed._replace(solved=nothing)
    )


def broadcast(
    server: Server, state: ServerState, number: Int[Array, ""], rates: ServerRates
) -> Broadcast:
    """What clients get after `number` rounds: D, and what it takes to solve a head for it."""
    embedding = state.params.fusion["params"][EMBEDDING]
    unobserved = rates.unobserved / server.fusion.n_items
    problem = LeastSquares(embedding.T @ embedding, unobserved, rates.penalty)
    return Broadcast(embedding[:, None], None, number, least_squares=problem)


def nothing(sent: Broadcast) -> CohortSum:
    """The sum of no uploads."""
    n_items, _, dim = sent.views.shape
    return CohortSum(jnp.zeros((n_items, numbers(dim))), None, jnp.zeros(()), jnp.zeros(()))


def step(
    server: Server,
    state: ServerState,
    features: Features,
    total: CohortSum,
    number: Int[Array, ""],
    rates: ServerRates,
) -> ServerState:
    """What the server has after a round: at the end of a pass other ID embeddings.

    The maps of features are fitted to them, as at the spectral start. The embedding of an item that
    nobody had in the pass stays as it was.

    Args:
        server: in mode "items".
        state: before.
        features: of the items.
        total: of the cohort.
        number: of rounds done before.
        rates: of the run.
    """
    first = number == server.warm.before
    sums, before = total.gradient, state.warmed
    before = before._replace(
        before=jax.tree.map(lambda x, y: jnp.where(first, x, y), state.params.fusion, before.before)
    )
    carried = before.equations is not None
    if carried:
        sums = sums + before.equations

    def learned() -> tuple[dict, Warmed]:
        params = state.params.fusion
        embedding = params["params"][EMBEDDING]
        embedding, solved = solutions(sums, embedding, rates.unobserved, rates.item_penalty)
        after = before._replace(solved=solved)
        if carried:
            after = after._replace(equations=jnp.zeros_like(sums))
        known = jnp.linalg.norm(embedding, axis=1) > 0
        return spectral.started(server, params, features, embedding, known, rates.content), after

    over = spectral.ends_a_pass(server, number) & (sums[:, -1] > 0).any()
    with numerics.products("highest"):
        fusion, warmed = jax.lax.cond(
            over,
            learned,
            lambda: (state.params.fusion, before._replace(equations=sums if carried else None)),
        )
    return ServerState(Shared(fusion, state.params.network), state.optimizer, warmed)


def solutions(
    sums: Float[Array, "items numbers"],
    before: Float[Array, "items dim"],
    unobserved: Float[Array, ""],
    penalty: Float[Array, ""],
) -> tuple[Float[Array, "items dim"], Solved]:
    """All items' embeddings, and what clients need to find their own part in them.

    Args:
        sums: of every item, see `numbers`.
        before: the embeddings that items keep which nobody has.
        unobserved: c.
        penalty: l.
    """
    n_items, dim = before.shape
    linear, pairs, popularity = jnp.split(sums, [dim, sums.shape[1] - 1], axis=1)
    popularity = popularity[:, 0]
    upper = jnp.triu_indices(dim)

    def square(half: Float[Array, " half"]) -> Float[Array, "dim dim"]:
        matrix = jnp.zeros((dim, dim)).at[upper].set(half)
        return matrix + jnp.triu(matrix, 1).T

    everything = unobserved / n_items * pairs.sum(axis=0)
    strength = popularity + unobserved / n_items * popularity.sum()

    def solved(item: tuple[Array, Array, Array]) -> Float[Array, " dim"]:
        half, right, weight = item
        matrix = square(half + everything) + penalty * weight * jnp.eye(dim)
        found, _ = jax.scipy.sparse.linalg.cg(
            lambda x: matrix @ x, right, tol=_TOLERANCE, maxiter=2 * dim
        )
        return found

    found = jax.lax.map(solved, (pairs, linear, strength), batch_size=min(_ROWS, n_items))
    embedding = jnp.where((popularity > 0)[:, None], found, before)
    mean = square(pairs.sum(axis=0)) / jnp.maximum(popularity.sum(), 1)
    return embedding, Solved(strength, inverse(mean + penalty * jnp.eye(dim)))
