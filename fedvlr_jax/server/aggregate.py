"""The server's half of a round: views out, the cohort's mean gradient in, one optimizer step.

METHOD "The identity that makes it fast": the views are constants during a round, so one
vector-Jacobian product of the operators on the cohort's mean dL/dF gives the exact mean of all
clients' gradients of D and gamma. In client mode `local` the cohort's mean movement stands for the
gradient (Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from fedvlr_jax.aggregation import MEAN, Aggregation
from fedvlr_jax.backbones.base import Backbone
from fedvlr_jax.fusion.operators import EMBEDDING, Features, Fusion
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.protocol import (
    Broadcast,
    CohortSum,
    Contributions,
    LeastSquares,
    Neighbours,
    Operators,
    OwnEquations,
)
from fedvlr_jax.server.privacy import with_noise


class Shared(NamedTuple):
    """What the server learns: D and gamma, and the backbone's network (None for most)."""

    fusion: Any
    network: Any


class Solved(NamedTuple):
    """What the server tells of ID embeddings that it has solved for (server/alternating.py).

    An item's matrix is about s_i (S + l identity), S being the mean of q q^T over all train pairs:
    `strength` is s_i, `inverse` that of S + l identity.
    """

    strength: Float[Array, " items"]
    inverse: Float[Array, "dim dim"]


class Warmed(NamedTuple):
    """What warm rounds tell the server of the items' co-occurrence X^T X (server/spectral.py).

    Either `sums` are X^T X over all of them. Or they are what uploads of a pass over the clients
    have come to so far, X^T X V and in the last column how many clients have each item, V being
    the columns that are `sent`.

    `popularity` is how many clients have each item, `eigenvalues` the squares of S by the columns
    of D (client/left_out.py), 0 before the first round; `neighbours` are the items' weights of
    `protocol.Neighbours`, None where nobody wants them. `equations` are the sums of a pass of
    alternating least squares so far, None where a pass is a single round, `solved` is what the last
    pass has come to, 0 before and None where there is none, and `before` are D and gamma as they
    were before the first pass, to go back to.
    """

    sums: Float[Array, "items columns"]
    popularity: Float[Array, " items"]
    eigenvalues: Float[Array, " dim"]
    sent: Float[Array, "items columns"] | None = None
    neighbours: Float[Array, "items items"] | None = None
    equations: Float[Array, "items numbers"] | None = None
    solved: Solved | None = None
    before: Any = None


class ServerState(NamedTuple):
    """What the server learns, and its optimizer's state; `warmed` is None without warm rounds."""

    params: Shared
    optimizer: optax.OptState
    warmed: Warmed | None = None


class ServerRates(NamedTuple):
    """Numbers of a run that the server needs, traced, so that they can change freely.

    Learning rates of D and gamma, and of the backbone's network; of the problem that clients solve
    for their heads the weight of all items and the penalty (`protocol.LeastSquares`). `content` is
    the mean norm of what a spectral start makes of features, relative to that of D's rows,
    `neighbours` the penalty of the neighbours' weights, and `share` what these count;
    `item_penalty` is that of ID embeddings that are solved for.
    """

    fusion: Float[Array, ""]
    network: Float[Array, ""]
    unobserved: Float[Array, ""]
    penalty: Float[Array, ""]
    content: Float[Array, ""]
    neighbours: Float[Array, ""]
    share: Float[Array, ""]
    item_penalty: Float[Array, ""]


class WarmStart(NamedTuple):
    """Warm rounds of one kind: how many, and in how many passes over the clients.

    `before` is how many warm rounds of other kinds there are before them, `columns` are those of
    subspace iteration, `neighbours` how many each item has that count, 0 where nobody wants them.
    """

    rounds: int
    passes: int
    before: int = 0
    columns: int = 0
    neighbours: int = 0


class Server(NamedTuple):
    """The server's fixed half.

    `optimizer` is at learning rate 1; `mode` is how clients train, "accumulate" or "local", or
    what they sum up in warm rounds, "pairs" or "products" (server/spectral.py) or "items"
    (server/alternating.py); `width` is that of the item vectors that a head scores; `noisy` whether
    the mean gradient gets noise; `again` whether what the operators compute on the way to the views
    is computed again for their gradient, and not kept while the clients train; `aggregation` may
    change the mean gradient; `exact` whether clients solve for their heads; `warm` is of warm
    rounds alone.
    """

    fusion: Fusion
    optimizer: optax.GradientTransformation
    backbone: Backbone
    width: int
    mode: str = "accumulate"
    noisy: bool = False
    again: bool = False
    aggregation: Aggregation = MEAN
    exact: bool = False
    warm: WarmStart | None = None


class Noise(NamedTuple):
    """The key of a round's noise on the mean gradient, and its standard deviation."""

    key: Array
    deviation: Float[Array, ""]


@functools.cache
def create(fusion: Fusion, optimizer: str, *fields: Any, **more: Any) -> Server:
    """A `Server` with an optax optimizer by name, and its other fields in their order or by name.

    The rate is applied to the optimizer's output, so that it can change without a compilation.
    Equal arguments give the same object, so that compiled programs are found again.
    """
    return Server(fusion, getattr(optax, optimizer)(learning_rate=1.0), *fields, **more)


def init(server: Server, features: Features, key: Array) -> ServerState:
    """Initial parameters, drawn from `key`, and the optimizer's initial state."""
    network = server.backbone.init_network(jax.random.fold_in(key, 1), server.width)
    params = Shared(server.fusion.init(key, features), network)
    return ServerState(params, server.optimizer.init(params))


def broadcast(
    server: Server,
    state: ServerState,
    features: Features,
    number: Int[Array, ""],
    rates: ServerRates,
) -> Broadcast:
    """What clients get under the current parameters, after `number` rounds."""
    local = server.mode == "local"
    operators = Operators(state.params.fusion, features) if local else None
    views = server.fusion.apply(state.params.fusion, features)
    problem = None
    if server.exact:
        flat = views.reshape(len(views), -1)
        problem = LeastSquares(
            flat.T @ flat,
            rates.unobserved / len(views),
            rates.penalty,
            _contributions(server.fusion, state.warmed),
        )
    neighbours = None
    if state.warmed is not None and state.warmed.neighbours is not None:
        neighbours = Neighbours(state.warmed.neighbours, rates.share)
    return Broadcast(views, state.params.network, number, operators, problem, neighbours)


def _contributions(fusion: Fusion, warmed: Warmed | None) -> Contributions | None:
    """What clients need to find their own part in views that are ID embeddings as they are."""
    found = np.array([view.reads == ("id",) for view in fusion.views])
    if warmed is None or fusion.layer_norm or not found.any():
        return None
    is_id = jnp.asarray(found)
    values, equations = warmed.eigenvalues, None
    inverse = jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1), 0)
    if warmed.solved is not None:
        equations = OwnEquations(*warmed.solved, is_id / is_id.sum())
    return Contributions(warmed.popularity, is_id[:, None] * inverse, equations)


def removals(
    server: Server,
    state: ServerState,
    features: Features,
    views: Float[Array, "items views dim"],
) -> Float[Array, "modalities items views dim"]:
    """The `views` without each of `MODALITIES`; where no view reads one, they are as they were."""
    read = server.fusion.modalities(features)
    return jnp.stack(
        [
            server.fusion.apply(state.params.fusion, features, name) if name in read else views
            for name in MODALITIES
        ]
    )


def nothing(server: Server, sent: Broadcast, held: bool = False) -> CohortSum:
    """The sum of no uploads; `held` where clients hand over all rows one by one."""
    n_items, n_views, dim = sent.views.shape
    shared = sent.network
    if server.mode == "local":
        gamma = {k: v for k, v in sent.operators.params["params"].items() if k != EMBEDDING}
        n_views, shared = 1, {"network": sent.network, "gamma": gamma}
    return CohortSum(
        gradient=jnp.zeros((n_items, n_views * dim)),
        shared=jax.tree.map(jnp.zeros_like, shared),
        weight=jnp.zeros(()),
        loss=jnp.zeros(()),
        squares=jnp.zeros((n_views * dim,) * 2) if server.exact and not held else None,
    )


class Gathered(NamedTuple):
    """What a cohort's uploads come to: the sum of their gradients, of weights and of losses."""

    gradient: Shared
    weight: Float[Array, ""]
    loss: Float[Array, ""]


def gathered(server: Server, state: ServerState, features: Features, total: CohortSum) -> Gathered:
    """The weighted sum of the cohort's gradients of D, gamma and the network.

    View gradients go back through the operators of `state`, which has to be what the cohort was
    sent: the identity holds for the views that clients trained on.
    """
    if server.mode == "local":
        moved = {EMBEDDING: total.gradient, **total.shared["gamma"]}
        gradient = Shared({"params": moved}, total.shared["network"])
    else:

        def apply(params: Any) -> Array:
            return server.fusion.apply(params, features)

        # XLA would otherwise find that `broadcast` has computed the same, and keep it.
        apply = jax.checkpoint(apply) if server.again else apply
        views, pull_back = jax.vjp(apply, state.params.fusion)
        of_views = total.gradient
        if total.squares is not None:
            of_views = of_views + views.reshape(of_views.shape) @ total.squares
        gradient = Shared(pull_back(of_views.reshape(views.shape))[0], total.shared)
    return Gathered(gradient, total.weight, total.loss)


def mean_gradient(cohort: Gathered) -> Shared:
    """The weighted mean; a cohort of which nobody came adds nothing."""
    return jax.tree.map(lambda x: x / jnp.maximum(cohort.weight, 1), cohort.gradient)


def step(
    server: Server,
    state: ServerState,
    cohort: Gathered,
    number: Int[Array, ""],
    rates: ServerRates,
    noise: Noise,
) -> ServerState:
    """One optimizer step on the mean of what the cohort uploaded (METHOD: one round, 3)."""
    mean = mean_gradient(cohort)
    if server.noisy:
        mean = with_noise(mean, *noise)
    mean = server.aggregation.applied(server.aggregation.of_mean, mean)
    if server.backbone.server_penalty is not None:
        slope = jax.grad(lambda p: server.backbone.server_penalty(p["params"][EMBEDDING], number))
        penalized = jax.tree.map(jnp.add, mean.fusion, slope(state.params.fusion))
        mean = mean._replace(fusion=penalized)
    updates, optimizer = server.optimizer.update(mean, state.optimizer, state.params)
    fusion = jax.tree.map(lambda u: rates.fusion * u, updates.fusion)
    network = jax.tree.map(lambda u: rates.network * u, updates.network)
    updates = Shared(fusion, network)
    return ServerState(optax.apply_updates(state.params, updates), optimizer, state.warmed)
