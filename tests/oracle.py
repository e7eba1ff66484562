"""The method once more: slow, obvious, one client after the other, no vmap and no identity.

Gradients of D and gamma are taken by backpropagating every client's loss through the fusion
operators, as the paper's algorithm 1 reads.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


def layer_norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * p["scale"] + p["bias"]


def mapped(x, p, j, d):
    found = x @ p["map"]["kernel"][:, j * d : (j + 1) * d]
    return layer_norm(found, p[f"norm_{j}"]) if f"norm_{j}" in p else found


def fuse(params, inputs, views, neighbours=None):
    """inputs: {'image': V, 'text': C}, either may be missing; returns a list of (items, d)."""
    p = params["params"]
    inputs = {**inputs, "id": p["item_embedding"]}
    result, d = [], p["item_embedding"].shape[1]
    for view in views:
        g = p.get(f"view_{view}")
        read = [name for name in inputs if view == name or view not in inputs]
        parts = [
            mapped(inputs[n], p[n], [v for v in views if v == n or v not in inputs].index(view), d)
            for n in read
        ]
        if view in ("sum", *inputs):
            result.append(sum(parts))
        elif view == "mlp":
            x = jnp.concatenate(parts, axis=1)
            x = jnp.maximum(x @ g["hidden"]["kernel"] + g["hidden"]["bias"], 0)
            result.append(layer_norm(x @ g["out"]["kernel"] + g["out"]["bias"], g["norm"]))
        elif view == "gate":
            x = jnp.concatenate(parts, axis=1)
            gate = 1 / (1 + jnp.exp(-(x @ g["gate"]["kernel"] + g["gate"]["bias"])))
            d = parts[0].shape[1]
            gated = gate * x
            result.append(sum(gated[:, k * d : (k + 1) * d] for k in range(len(parts))))
        elif view == "attention":
            a = g["attention"]
            tokens = jnp.stack(parts, axis=1)
            q, k, v = (
                jnp.einsum("imd,dhk->imhk", tokens, a[n]["kernel"]) + a[n]["bias"]
                for n in ("query", "key", "value")
            )
            raw = jnp.einsum("imhk,inhk->ihmn", q, k) / np.sqrt(q.shape[-1])
            raw = jnp.exp(raw)
            mixed = jnp.einsum("ihmn,inhk->imhk", raw / raw.sum(axis=-1, keepdims=True), v)
            out = jnp.einsum("imhk,hkd->imd", mixed, a["out"]["kernel"]) + a["out"]["bias"]
            result.append(out.mean(axis=1))
        elif view in ("balanced", "image_dominant", "text_dominant"):
            w = jnp.exp(g["weights"]) / jnp.exp(g["weights"]).sum()
            result.append(sum(w[m] * part for m, part in enumerate(parts)))
        elif view == "graph":
            rows = sum(parts)
            result.append(
                jnp.stack(
                    [
                        jnp.stack([rows[i], *(rows[j] for j in near)]).mean(axis=0)
                        for i, near in enumerate(neighbours)
                    ]
                )
            )
        else:
            raise AssertionError(view)
    return result


# The same for every client, however long its history: compiled once.
fused = jax.jit(fuse, static_argnames="views")


def view_weights(router, fused, history):
    if router is None:
        return jnp.full(len(fused), 1 / len(fused))
    r = router["params"]
    z = jnp.concatenate([f[history].mean(axis=0) for f in fused])
    hidden = jnp.maximum(z @ r["hidden"]["kernel"] + r["hidden"]["bias"], 0)
    logits = hidden @ r["out"]["kernel"] + r["out"]["bias"]
    return jnp.exp(logits) / jnp.exp(logits).sum()


@dataclass(frozen=True)
class Method:
    """What is trained; `pool` and everything else that differs by client is passed along."""

    views: tuple
    backbone: str = "fedavg"
    variant: str = "fedvlr"
    mode: str = "accumulate"
    epochs: int = 3
    negatives: int = 2
    round: int = 0
    expected: bool = False
    exact: bool = False
    unobserved: float = 0.0
    penalty: float = 0.0

    def alpha(self, history):
        return len(history) if self.backbone == "fedavg" else 1


def vectors(method, shared, private, inputs, history):
    """The client's vectors of all items, own ones left aside."""
    views = fused(shared["fusion"], inputs, views=method.views)
    if method.variant == "vbpr":
        return jnp.concatenate(views, axis=1)
    w = view_weights(private["router"], views, history)
    return sum(w[j] * view for j, view in enumerate(views))


def score(method, network, head, x):
    if method.backbone != "fedncf":
        return x @ head["theta"] + head["bias"]
    p = network["params"]
    hidden = jnp.concatenate([jnp.stack([head["q"]] * len(x)), x], axis=1)
    for k in range(3):
        layer = p[f"Dense_{k}"]
        hidden = jnp.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
    both = jnp.concatenate([head["p"] * x, hidden], axis=1)
    return (both @ p["out"]["kernel"] + p["out"]["bias"])[:, 0]


def cross_entropies(s, history, negatives):
    positive = -jnp.log(1 / (1 + jnp.exp(-s[history])))
    negative = -jnp.log(1 - 1 / (1 + jnp.exp(-s[negatives])))
    return jnp.concatenate([positive, negative])


def counts(method, history, negatives):
    """How often each sample counts: positives, then negatives."""
    every = method.negatives * len(history)  # are drawn, so each item is met so often on average:
    weight = every / len(negatives) if method.expected else 1.0
    return jnp.concatenate([jnp.ones(len(history)), jnp.full(len(negatives), weight)])


def solved(method, x, history):
    """The head that minimizes the squared loss over all items, by numpy in 64 bits."""
    x = np.asarray(x, np.float64)
    weight = method.unobserved * len(history) / len(x)
    matrix = sum(np.outer(x[i], x[i]) for i in history)
    matrix = matrix + weight * sum(np.outer(row, row) for row in x)
    matrix = matrix + method.penalty * np.eye(x.shape[1])
    theta = np.linalg.solve(matrix, sum(x[i] for i in history))
    return {"theta": jnp.asarray(theta, jnp.float32), "bias": jnp.zeros(())}


def left_out_error(router, shared, inputs, method, history):
    """Squared errors of train items at heads that are solved anew without them, and of all items.

    The views are held, but for what the router reads of them.
    """
    views = fused(shared["fusion"], inputs, views=method.views)
    w = view_weights(router, views, np.array(history))
    views = jax.lax.stop_gradient(views)
    x = sum(w[j] * view for j, view in enumerate(views))
    weight = method.unobserved * len(history) / len(x)
    everything = weight * x.T @ x + method.penalty * jnp.eye(x.shape[1])

    def head(items):
        here = x[np.array(items)]
        return jnp.linalg.solve(everything + here.T @ here, here.sum(axis=0))

    total = weight * ((x @ head(history)) ** 2).sum()
    for i in history:
        total += (1 - x[i] @ head([j for j in history if j != i])) ** 2
    return total / len(history) if len(history) > 1 else 0.0 * total


def squared_loss(method, head, x, history):
    s = x @ head["theta"]
    weight = method.unobserved * len(history) / len(x)
    total = ((1 - s[history]) ** 2).sum() + weight * (s**2).sum()
    return (total + method.penalty * (head["theta"] ** 2).sum()) / len(history)


def loss(shared, private, inputs, method, history, negatives):
    if method.exact:  # the router follows another error
        private = jax.lax.stop_gradient(private)
        views = fused(shared["fusion"], inputs, views=method.views)
        x = vectors(method, shared, private, inputs, history)
        if method.variant != "vbpr":
            w = jax.lax.stop_gradient(view_weights(private["router"], views, history))
            x = sum(w[j] * view for j, view in enumerate(views))
        return squared_loss(method, private["head"], x, history)
    often = counts(method, history, negatives)
    x = vectors(method, shared, private, inputs, history)
    if method.backbone != "fedrap":
        s = score(method, shared["network"], private["head"], x)
        return often @ cross_entropies(s, history, negatives) / often.sum()
    s = score(method, shared["network"], private["head"], x + private["own"])
    batch = jnp.concatenate([history, negatives])
    apart = often @ ((private["own"][batch] - x[batch]) ** 2).mean(axis=1) / often.sum()
    a = 1e-4 * jnp.tanh(method.round / 10)
    return often @ cross_entropies(s, history, negatives) / often.sum() - a * apart


def tuning_loss(own, network, head, method, history, negatives):
    losses = cross_entropies(score(method, network, head, own), history, negatives)
    return counts(method, history, negatives) @ losses


_value_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnames="method")
_left_out_gradients = jax.jit(
    jax.grad(left_out_error, argnums=(0, 1)), static_argnames=("method", "history")
)
_tuning_gradient = jax.jit(jax.grad(tuning_loss), static_argnames="method")
_vectors = jax.jit(vectors, static_argnames="method")


def draw_negatives(key, history, pool, n_items, method):
    """Some of the items there are, or all of them where they are taken in expectation."""
    if pool is None:
        pool = np.array([i for i in range(n_items) if i not in set(history.tolist())])
    if method.expected:
        return pool
    shape = (len(history), method.negatives)
    bits = np.asarray(jax.random.bits(key, shape, jnp.uint32))
    return pool[bits % len(pool)].ravel()


def client_round(shared, private, inputs, method, history, pool, key, rates):
    """Private parameters after the round, what is uploaded of `shared`, mean loss.

    `private["own"]` is a table of all items, of which a client touches some rows.
    """
    shared, private = jax.device_get((shared, private))  # NumPy compiles nothing
    n_items = shared["fusion"]["params"]["item_embedding"].shape[0]
    total = jax.tree.map(np.zeros_like, shared)
    copies, sent_views, losses = shared, shared, []
    n_samples = len(history) * (1 + method.negatives)
    rates = {**rates, "own": rates["own"] * n_samples}

    def negatives_of(epoch):
        key_of_epoch = jax.random.fold_in(key, epoch)
        return draw_negatives(key_of_epoch, history, pool, n_items, method)

    for epoch in range(method.epochs):
        if method.exact:
            x = vectors(method, shared, private, inputs, history)
            private = {**private, "head": solved(method, x, history)}
        value, (g_shared, g_private) = jax.device_get(
            _value_and_gradients(copies, private, inputs, method, history, negatives_of(epoch))
        )
        if method.exact and private["router"] is not None:
            items = tuple(history.tolist())
            g_router, g_pooled = _left_out_gradients(
                private["router"], shared, inputs, method, items
            )
            g_private = {**g_private, "router": g_router}
            g_shared = jax.tree.map(np.add, g_shared, g_pooled)
        total = jax.tree.map(np.add, total, g_shared)
        if method.mode == "local":
            copies = jax.tree.map(lambda x, g: x - rates["shared"] * g, copies, g_shared)
        private = private | {
            part: jax.tree.map(lambda x, g, r=rates[part]: x - r * g, private[part], g)
            for part, g in g_private.items()
            if not (method.exact and part == "head")
        }
        losses.append(float(value))
    if method.backbone == "pfedrec":
        own = jax.device_get(_vectors(method, sent_views, private, inputs, history))
        for epoch in range(method.epochs):
            drawn = negatives_of(method.epochs + epoch)
            slope = _tuning_gradient(own, None, private["head"], method, history, drawn)
            own = own - rates["own"] / n_samples * jax.device_get(slope)
        private = {**private, "own": own}
    if method.mode == "local":
        total = jax.tree.map(np.subtract, shared, copies)
    return private, total, float(np.mean(losses))


def cohort_round(shared, privates, inputs, method, histories, pools, cohort, keys, rates):
    """Privates after the round, weighted mean of what is uploaded, weighted mean loss."""
    privates = list(privates)
    sums, weight, loss_sum = jax.tree.map(np.zeros_like, shared), 0.0, 0.0
    for client in cohort:
        privates[client], uploaded, value = client_round(
            shared,
            privates[client],
            inputs,
            method,
            histories[client],
            None if pools is None else pools[client],
            keys[client],
            rates,
        )
        alpha = method.alpha(histories[client])
        sums = jax.tree.map(lambda s, g, a=alpha: s + a * g, sums, uploaded)
        weight += alpha
        loss_sum += alpha * value
    return privates, jax.tree.map(lambda s: s / weight, sums), loss_sum / weight


def all_scores(shared, private, trained, inputs, method, history):
    """Scores of all items as a client makes them after its round.

    `private["own"]` holds NaN in rows of which the client has no vector of its own.
    """
    x = vectors(method, shared, private, inputs, history)
    if method.exact:
        return x @ solved(method, x, history)["theta"]
    if private["own"] is not None:
        has = ~jnp.isnan(private["own"])
        own = {"fedrap": x + private["own"], "pfedrec": private["own"]}[method.backbone]
        x = jnp.where(has & (trained or method.backbone == "fedrap"), own, x)
    return score(method, shared["network"], private["head"], x)
