"""FedVLR in one file, from top to bottom as the data flow: python -m examples.one_file

This is the method of docs/method.md with its default backbone `fedavg`, variant `fedvlr` and client
mode `accumulate`, one client at a time. Symbols in comments are those of that page. The package
does the same for ten thousand clients at once, and a test holds the two to equal numbers.

To be short, it sends dense arrays: a history is a 0 or 1 for every item, and a client's gradient
has a row for every item, with zeros where the client has not touched the item.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

DIM = 64  # d, the width of a view
LOCAL_EPOCHS, NEGATIVES = 5, 4  # NEGATIVES are drawn for every train item in every epoch
SERVER_LR, HEAD_LR, ROUTER_LR = 0.03, 0.03, 0.003
ROUNDS, N_CLIENTS, N_ITEMS = 20, 150, 200

Array = jax.Array | np.ndarray
Params = dict[str, Any]  # arrays by name
Features = dict[str, Array]  # V and C by the name of their modality, each (items, width)
Views = Float[Array, "items views dim"]  # F_1, F_2, F_3 of every item, or a gradient of them
History = Float[Array, " items"]  # H_u: 1 at the client's train items
Negatives = Float[Array, "epochs items"]  # how often an item is a negative in a local epoch


def normal(rng: np.random.Generator, deviation: float, *shape: int) -> Array:
    """Random initial parameters."""
    return jnp.array(deviation * rng.standard_normal(shape), jnp.float32)


# 1. Features. The server has V and C of every item from a frozen CLIP, and learns ID embeddings D.


class Server(NamedTuple):
    """What the server learns, and Adam's running means of the gradient and of its square."""

    params: Params  # D, and gamma_j by the name of the view
    mean: Params
    square: Params
    steps: int


def new_server(rng: np.random.Generator, features: Features) -> Server:
    """Random D and maps; layer norms that change nothing yet."""
    params: Params = {"D": normal(rng, 0.1, len(features["image"]), DIM)}
    for view, width in (*((name, x.shape[1]) for name, x in features.items()), ("id", DIM)):
        kernel = normal(rng, width**-0.5, width, DIM)
        params[view] = {"kernel": kernel, "scale": jnp.ones(DIM), "bias": jnp.zeros(DIM)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Server(params, zeros, zeros, 0)


# 2. Views. One operator g_j for each of V, C and D: a linear map to width d, and a layer norm.


def fuse(params: Params, features: Features) -> Views:
    """F_1 = v, F_2 = c and F_3 = e of every item."""
    views = []
    for name, x in {**features, "id": params["D"]}.items():
        gamma = params[name]
        mapped = x @ gamma["kernel"]
        centred = mapped - mapped.mean(axis=1, keepdims=True)
        deviation = jnp.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
        views.append(centred / deviation * gamma["scale"] + gamma["bias"])
    return jnp.stack(views, axis=1)


# 3. Broadcast. Every client gets the views F, the same for all.
# 4. The client. Its history H_u, its router phi_u and its head theta_u never leave it.


def new_router(rng: np.random.Generator, n_views: int) -> Params:
    """Two layers. The last one is zero, so at first all views weigh the same."""
    first = normal(rng, (n_views * DIM) ** -0.5, n_views * DIM, DIM)
    last = jnp.zeros((DIM, n_views))
    return {"W1": first, "b1": jnp.zeros(DIM), "W2": last, "b2": jnp.zeros(n_views)}


def new_client(rng: np.random.Generator, router: Params) -> Params:
    """All clients begin with the same router; each draws a head of its own."""
    return {"router": router, "head": {"theta": normal(rng, 0.3 / DIM**0.5, DIM), "b": 0.0}}


def scores(private: Params, views: Views, history: History) -> Float[Array, " items"]:
    """s_ui of every item."""
    router, head = private["router"], private["head"]
    # Router: it pools the history to z_u, and gives the weights w_u of the views.
    z = jnp.einsum("i,igd->gd", history, views).ravel() / history.sum()
    hidden = jax.nn.relu(z @ router["W1"] + router["b1"])
    w = jax.nn.softmax(hidden @ router["W2"] + router["b2"])
    # Head: it scores the client's item vectors, sum_j w_uj F_j.
    return jnp.einsum("g,igd->id", w, views) @ head["theta"] + head["b"]


def draw_negatives(rng: np.random.Generator, history: History) -> Negatives:
    """Drawn anew for every epoch, uniformly over all items that are not in H_u."""
    others, number = np.flatnonzero(history == 0), NEGATIVES * int(history.sum())
    drawn = [rng.choice(others, number) for _ in range(LOCAL_EPOCHS)]
    return np.stack([np.bincount(items, minlength=len(history)) for items in drawn]).astype("f4")


def loss(
    private: Params, views: Views, history: History, negatives: Float[Array, " items"]
) -> Float[Array, ""]:
    """L_u: binary cross-entropy, averaged over an epoch's positives and negatives."""
    s = scores(private, views, history)
    total = (history * jax.nn.softplus(-s) + negatives * jax.nn.softplus(s)).sum()
    return total / (history.sum() + negatives.sum())


@jax.jit
def client_round(
    private: Params, views: Views, history: History, negatives: Negatives
) -> tuple[Params, Views, Float[Array, ""]]:
    """What the client keeps, what it uploads (dL_u/dF, added up over epochs), and its mean loss."""
    rates = {"router": ROUTER_LR, "head": HEAD_LR}
    upload, losses = jnp.zeros_like(views), []
    for drawn in negatives:
        value_and_slopes = jax.value_and_grad(loss, argnums=(0, 1))
        value, (of_private, of_views) = value_and_slopes(private, views, history, drawn)
        # Router and head step at once; the views stay as they were sent.
        private = {
            part: jax.tree.map(lambda x, g, r=rate: x - r * g, private[part], of_private[part])
            for part, rate in rates.items()
        }
        upload, losses = upload + of_views, [*losses, value]
    return private, upload, jnp.stack(losses).mean()


# 5. The server: the mean of what clients have uploaded, and one step of Adam.


def server_step(server: Server, features: Features, mean_upload: Views) -> Server:
    """The gradient of D and gamma is J^T dL/dF, with the Jacobian J of the operators."""
    _, transposed_jacobian = jax.vjp(lambda params: fuse(params, features), server.params)
    (gradient,) = transposed_jacobian(mean_upload)
    t = server.steps + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, server.mean, gradient)
    square = jax.tree.map(lambda q, g: 0.999 * q + 0.001 * g**2, server.square, gradient)

    def stepped(x: Array, m: Array, q: Array) -> Array:
        return x - SERVER_LR * (m / (1 - 0.9**t)) / (jnp.sqrt(q / (1 - 0.999**t)) + 1e-8)

    return Server(jax.tree.map(stepped, server.params, mean, square), mean, square, t)


def federated_round(
    server: Server,
    clients: list[Params],
    features: Features,
    histories: list[History],
    negatives: list[Negatives],
) -> tuple[Server, list[Params], float]:
    """Steps 2 to 5, with all clients; alpha_u is a client's share of all train items."""
    views = fuse(server.params, features)
    mean_upload, mean_loss, kept = jnp.zeros_like(views), 0.0, []
    for private, history, drawn in zip(clients, histories, negatives, strict=True):
        private, upload, value = client_round(private, views, history, drawn)
        alpha = history.sum() / np.sum(histories)
        mean_upload, mean_loss = mean_upload + alpha * upload, mean_loss + alpha * value
        kept.append(private)
    return server_step(server, features, mean_upload), kept, float(mean_loss)


# 6. Evaluation. Every client ranks all items but its train items, with the server's new views.


_scores = jax.jit(scores)


def ndcg_at_50(private: Params, views: Views, history: History, held_out: int) -> float:
    """NDCG@50 of a client's held-out item, from 0 to 1."""
    s = np.asarray(_scores(private, views, history))
    rank = int((s[history == 0] > s[held_out]).sum())  # 0 is the first place
    return float(1 / np.log2(rank + 2)) if rank < 50 else 0.0


def small_world(
    rng: np.random.Generator,
) -> tuple[Features, list[History], Int[np.ndarray, " clients"]]:
    """Features, histories and held-out items: half of the clients go by looks, half by words."""
    features = {"image": normal(rng, 1.0, N_ITEMS, 4), "text": normal(rng, 1.0, N_ITEMS, 4)}
    histories, held_out = np.zeros((N_CLIENTS, N_ITEMS), np.float32), np.zeros(N_CLIENTS, int)
    for u, likes in enumerate(["image", "text"] * (N_CLIENTS // 2)):
        utility = 1.5 * features[likes] @ rng.standard_normal(4) + rng.gumbel(size=N_ITEMS)
        bought = rng.permutation(np.argsort(-utility)[: rng.integers(6, 20)])
        histories[u, bought[1:]], held_out[u] = 1, bought[0]
    return features, list(histories), held_out


def main() -> None:
    """Train in the small world, and print the loss and NDCG@50 of every round."""
    rng = np.random.default_rng(0)
    features, histories, held_out = small_world(rng)
    server, router = new_server(rng, features), new_router(rng, n_views=3)
    clients = [new_client(rng, router) for _ in histories]
    for number in range(1, ROUNDS + 1):
        drawn = [draw_negatives(rng, history) for history in histories]
        server, clients, value = federated_round(server, clients, features, histories, drawn)
        views = fuse(server.params, features)
        found = map(ndcg_at_50, clients, [views] * N_CLIENTS, histories, held_out.tolist())
        print(f"round {number}: loss {value:.4f}, test NDCG@50 {100 * np.mean([*found]):.2f} %")


if __name__ == "__main__":
    main()
