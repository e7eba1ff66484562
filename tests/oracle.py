"""The method once more: slow, obvious, one client after the other, no vmap and no identity.

Gradients of D and gamma are taken by backpropagating every client's loss through the fusion
operators, as the paper's algorithm 1 reads.
"""

import jax
import jax.numpy as jnp
import numpy as np


def layer_norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * p["scale"] + p["bias"]


def mapped(x, p, j):
    d = len(p["norm_0"]["scale"])
    return layer_norm(x @ p["map"]["kernel"][:, j * d : (j + 1) * d], p[f"norm_{j}"])


def fuse(params, inputs, views):
    """inputs: {'image': V, 'text': C}, either may be missing; returns a list of (items, d)."""
    p = params["params"]
    inputs = {**inputs, "id": p["item_embedding"]}
    result = []
    for view in views:
        g = p.get(f"view_{view}")
        read = [name for name in inputs if view == name or view not in inputs]
        parts = [
            mapped(inputs[n], p[n], [v for v in views if v == n or v not in inputs].index(view))
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
        else:
            raise AssertionError(view)
    return result


def view_weights(router, fused, history):
    if router is None:
        return jnp.ones(1)
    r = router["params"]
    z = jnp.concatenate([f[history].mean(axis=0) for f in fused])
    hidden = jnp.maximum(z @ r["hidden"]["kernel"] + r["hidden"]["bias"], 0)
    logits = hidden @ r["out"]["kernel"] + r["out"]["bias"]
    return jnp.exp(logits) / jnp.exp(logits).sum()


def scores(private, fused, history):
    w = view_weights(private["router"], fused, history)
    personal = sum(w[j] * f for j, f in enumerate(fused))
    return personal @ private["head"]["theta"] + private["head"]["bias"]


def loss(params, private, inputs, views, history, negatives):
    s = scores(private, fuse(params, inputs, views), history)
    positive = -jnp.log(1 / (1 + jnp.exp(-s[history])))
    negative = -jnp.log(1 - 1 / (1 + jnp.exp(-s[negatives])))
    return jnp.concatenate([positive, negative]).mean()


_value_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnames="views")


def draw_negatives(key, history, n_items, per_positive):
    outside = np.array([i for i in range(n_items) if i not in set(history.tolist())])
    bits = np.asarray(jax.random.bits(key, (len(history), per_positive), jnp.uint32))
    return outside[bits % len(outside)].ravel()


def client_round(params, private, inputs, views, history, key, *, epochs, negatives, rates):
    """Private parameters after the round, summed gradient of (D, gamma), mean loss."""
    n_items = params["params"]["item_embedding"].shape[0]
    total = jax.tree.map(jnp.zeros_like, params)
    losses = []
    for epoch in range(epochs):
        drawn = draw_negatives(jax.random.fold_in(key, epoch), history, n_items, negatives)
        value, (g_params, g_private) = _value_and_gradients(
            params, private, inputs, views, history, drawn
        )
        total = jax.tree.map(jnp.add, total, g_params)
        private = {
            part: jax.tree.map(
                lambda x, g, r=rates[part]: x - r * g, private[part], g_private[part]
            )
            for part in ("router", "head")
        }
        losses.append(float(value))
    return private, total, float(np.mean(losses))


def cohort_round(params, privates, inputs, views, histories, cohort, keys, **settings):
    """Privates after the round, mean gradient weighted by train items, mean loss."""
    privates = list(privates)
    sums, weight, loss_sum = jax.tree.map(jnp.zeros_like, params), 0.0, 0.0
    for client in cohort:
        privates[client], gradient, value = client_round(
            params, privates[client], inputs, views, histories[client], keys[client], **settings
        )
        alpha = len(histories[client])
        sums = jax.tree.map(lambda s, g, a=alpha: s + a * g, sums, gradient)
        weight += alpha
        loss_sum += alpha * value
    return privates, jax.tree.map(lambda s: s / weight, sums), loss_sum / weight
