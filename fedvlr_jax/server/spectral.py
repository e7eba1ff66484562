"""The server's half of a warm round: what it sends, and a spectral first value of what it learns.

Let X be the clients' train matrix of zeros and ones and P its column sums. The first value of D are
the leading eigenvectors of C = P^-1/4 X^T X P^-1/4, each times the square root of its eigenvalue,
and all times one number. X^T X is a sum over clients, so that ordinary sums of uploads tell it:
in mode "pairs" itself, in mode "products" X^T X V for some columns V that the server sends. The
latter is subspace iteration, a multiplication with C a pass over the clients (Halko, Martinsson and
Tropp 2011, arXiv 0909.4061). METHOD "A spectral first value".
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax import numerics
from fedvlr_jax.fusion.operators import EMBEDDING, Features
from fedvlr_jax.linear_algebra import inverse, left_singular
from fedvlr_jax.protocol import Broadcast, CohortSum
from fedvlr_jax.server.aggregate import Server, ServerRates, ServerState, Shared, Warmed

PASSES = {"pairs": 1, "products": 4}  # over the clients, by mode
OVERSAMPLING = 16  # columns beside those of D
_ITERATIONS = 20  # of subspace iteration on X^T X itself
_PENALTY = 10.0  # of the maps of features, relative to a feature row's mean square
_ROWS = 256  # that are sorted at a time; all of them would take as much memory again, twice
_MOST_STEPS, _LEFT = 1000, 1e-6  # of conjugate gradients, and what may be left, relative


def init(server: Server, key: Array) -> Warmed:
    """The sums of nothing, and what is sent first: random columns."""
    n_items, columns = server.fusion.n_items, server.warm.columns
    of_items = jnp.zeros(n_items), jnp.zeros(server.fusion.dim)
    if server.mode == "pairs":
        nothing = jnp.zeros((n_items, n_items))
        return Warmed(nothing, *of_items, neighbours=nothing if server.warm.neighbours else None)
    drawn = jax.random.normal(key, (n_items, columns))
    return Warmed(jnp.zeros((n_items, columns + 1)), *of_items, sent=drawn)


def broadcast(
    server: Server,
    state: ServerState,
    number: Int[Array, ""],
    rates: ServerRates,  # noqa: ARG001 - other warm rounds need them
) -> Broadcast:
    """What clients get after `number` rounds; in mode "pairs" nothing but that number."""
    columns = state.warmed.sent
    if columns is None:
        columns = jnp.zeros((server.fusion.n_items, 0))
    return Broadcast(columns[:, None], None, number)


def nothing(sent: Broadcast) -> CohortSum:
    """The sum of no uploads: X^T X, or X^T X V and P in the last column."""
    n_items, _, columns = sent.views.shape
    width = columns + 1 if columns else n_items
    return CohortSum(jnp.zeros((n_items, width)), None, jnp.zeros(()), jnp.zeros(()))


def step(
    server: Server,
    state: ServerState,
    features: Features,
    total: CohortSum,
    number: Int[Array, ""],
    rates: ServerRates,
) -> ServerState:
    """What the server has after a warm round.

    At the end of a pass over the clients D and the maps get their spectral first value. All other
    parameters, and the optimizer's state, are as they were.

    Args:
        server: with a mode of `PASSES`.
        state: before.
        features: of the items.
        total: of the cohort.
        number: of rounds done before.
        rates: of the run.
    """
    before = state.warmed
    sums, sent = before.sums + total.gradient, before.sent
    popularity = jnp.diagonal(sums) if sent is None else sums[:, -1]

    def learned() -> tuple[dict, Warmed]:
        if sent is None:
            vectors, values = _of_pairs(server, popularity, sums)
            after = before._replace(sums=sums)
            if server.warm.neighbours:
                found = item_weights(sums, rates.neighbours, server.warm.neighbours)
                after = after._replace(neighbours=found)
        else:
            vectors, values = left_singular(_shrunk(popularity, sums[:, :-1]))
            values = values / _scale(*vectors.shape)  # as if the columns had norm 1
            follows = _shrunk(popularity, _scale(*vectors.shape) * vectors)
            after = before._replace(sums=jnp.zeros_like(sums), sent=follows)
        embedding = _embedding(vectors, values, server.fusion.dim)
        params, known = state.params.fusion, popularity > 0
        after = after._replace(
            popularity=popularity, eigenvalues=_of_width(values[None], server.fusion.dim)[0]
        )
        return started(server, params, features, embedding, known, rates.content), after

    # Nobody may have come so far.
    over = ends_a_pass(server, number) & (popularity > 0).any()
    with numerics.products("highest"):  # eigenvectors of less are none
        fusion, warmed = jax.lax.cond(
            over, learned, lambda: (state.params.fusion, before._replace(sums=sums))
        )
    return ServerState(Shared(fusion, state.params.network), state.optimizer, warmed)


def ends_a_pass(server: Server, number: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether the round after `number` others ends a pass; passes are about equally long."""
    passes, rounds = server.warm.passes, server.warm.rounds
    number = number - server.warm.before
    return passes * (number + 1) // rounds > passes * number // rounds


def _of_pairs(
    server: Server, popularity: Float[Array, " items"], sums: Float[Array, "items items"]
) -> tuple[Float[Array, "items columns"], Float[Array, " columns"]]:
    """Leading eigenvectors and eigenvalues of C, from X^T X."""
    pairs = (sums + sums.T) / 2  # noise is not symmetric
    matrix = _shrunk(popularity, _shrunk(popularity, pairs).T)
    drawn = jax.random.normal(jax.random.key(0), (len(pairs), server.warm.columns))
    vectors = jax.lax.fori_loop(
        0, _ITERATIONS, lambda _, vectors: left_singular(matrix @ vectors)[0], drawn
    )
    return left_singular(matrix @ vectors)


def item_weights(
    pairs: Float[Array, "items items"], penalty: Float[Array, ""], kept: int
) -> Float[Array, "items items"]:
    """How much an item of a history (a row) says for every other item (a column), from X^T X.

    EASE (Steck 2019, equation 8): B = identity - P diag(P)^-1 with P = (X^T X + penalty
    identity)^-1. Of each row only the `kept` weights that are largest in absolute value stay, and
    of equal ones those of the lowest ids.
    """
    n_items = len(pairs)
    found = inverse((pairs + pairs.T) / 2 + penalty * jnp.eye(n_items))
    weights = jnp.where(jnp.eye(n_items, dtype=bool), 0, -found / jnp.diagonal(found))
    if kept >= n_items - 1:
        return weights

    def cut(row: Float[Array, " items"]) -> Float[Array, " items"]:
        largest = jax.lax.top_k(jnp.abs(row), kept)[1]
        return jnp.zeros_like(row).at[largest].set(row[largest])

    return jax.lax.map(cut, weights, batch_size=_ROWS)


def _shrunk(
    popularity: Float[Array, " items"], rows: Float[Array, "items n"]
) -> Float[Array, "items n"]:
    """P^-1/4 times rows; 0 times those of items that nobody has."""
    scale = jnp.maximum(popularity, 1) ** -0.25
    return jnp.where(popularity > 0, scale, 0)[:, None] * rows


def _scale(n_items: int, columns: int) -> float:
    """What vectors of norm 1 are sent times: the mean square of their rows' norms is 1 then."""
    return math.sqrt(n_items / columns)


def _embedding(
    vectors: Float[Array, "items columns"], values: Float[Array, " columns"], dim: int
) -> Float[Array, "items dim"]:
    """D: of width `dim`, with columns of zeros if there are fewer; rows of mean norm 1."""
    rows = _of_width(vectors * jnp.sqrt(values), dim)
    return rows / _mean_norm(rows, len(rows))


def _of_width(rows: Float[Array, "rows columns"], dim: int) -> Float[Array, "rows dim"]:
    """The first `dim` columns, with zeros if there are fewer."""
    rows = rows[:, :dim]
    return jnp.pad(rows, ((0, 0), (0, dim - rows.shape[1])))


def _mean_norm(rows: Float[Array, "rows width"], n_items: int) -> Float[Array, ""]:
    """The mean norm of the items' rows; those that fill up devices are 0."""
    mean = jnp.linalg.norm(rows, axis=1).sum() / n_items
    return jnp.where(mean > 0, mean, 1)


def started(
    server: Server,
    params: dict,
    features: Features,
    embedding: Float[Array, "items dim"],
    known: Bool[Array, " items"],
    content: Float[Array, ""],
) -> dict:
    """The operators' parameters with D, and with maps that make the same of features.

    That of ID embeddings is the identity, those of image and text are least-squares fits of D.
    """
    started = dict(params["params"])
    for modality in server.fusion.modalities(features):
        if modality == "id":
            found = jnp.eye(server.fusion.dim)
        else:
            found = content * _fitted(getattr(features, modality), embedding, known)
        started[modality] = _with_map(started[modality], found)
    return {**params, "params": started | {EMBEDDING: embedding}}


def _with_map(maps: dict, kernel: Float[Array, "width dim"]) -> dict:
    """The parameters of one modality's maps with the same one for every operator that reads it."""
    copies = maps["map"]["kernel"].shape[1] // kernel.shape[1]
    return {**maps, "map": {**maps["map"], "kernel": jnp.tile(kernel, (1, copies))}}


def _fitted(
    rows: Float[Array, "rows width"],
    embedding: Float[Array, "items dim"],
    known: Bool[Array, " items"],
) -> Float[Array, "width dim"]:
    """The map of feature rows that comes closest to D at the items that somebody has.

    Ridge regression, then one number, so that the rows that it makes have the mean norm of D's. The
    rows may be split over devices, and may be more than there are items.
    """
    n_items = len(embedding)
    norm = _mean_norm(embedding, n_items)
    unused = len(rows) - n_items
    embedding = jnp.pad(embedding, ((0, unused), (0, 0)))
    fitted = jnp.pad(known, (0, unused))[:, None] * rows
    gramian = fitted.T @ fitted
    penalty = _PENALTY * jnp.trace(gramian) / jnp.maximum(known.sum(), 1)
    found, _ = jax.scipy.sparse.linalg.cg(
        lambda x: gramian @ x + penalty * x,
        fitted.T @ embedding,
        tol=_LEFT,
        maxiter=_MOST_STEPS,
    )
    return norm / _mean_norm(rows @ found, n_items) * found
