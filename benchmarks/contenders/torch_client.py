"""One client's local training in PyTorch: autograd, and a plain SGD step."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.contenders.client import Rates
from fedvlr_jax.client.model import ClientState


class Private(NamedTuple):
    """A client's router and head, or those of all clients with a leading axis.

    Shapes: (views * dim, dim), (dim,), (dim, views), (views,), (dim,), ().
    """

    hidden_kernel: Tensor
    hidden_bias: Tensor
    out_kernel: Tensor
    out_bias: Tensor
    theta: Tensor
    bias: Tensor


def arrays(state: ClientState) -> tuple[np.ndarray, ...]:
    """The project's private state as numpy arrays in the order of `Private`, copied."""
    hidden, out = (state.router["params"][name] for name in ("hidden", "out"))
    leaves = (hidden["kernel"], hidden["bias"], out["kernel"], out["bias"])
    return tuple(np.array(leaf) for leaf in (*leaves, state.head["theta"], state.head["bias"]))


def train(
    views: Tensor,
    private: Private,
    history: Tensor,
    negatives: Tensor,
    rates: Rates,
    total: Tensor,
) -> float:
    """All local epochs of one client.

    Args:
        views: (items, views, dim).
        private: stepped in place.
        history: (history,) train items.
        negatives: (epochs, drawn).
        rates: of head and router.
        total: (items, views, dim), to which the gradient of the views is added in place.

    Returns:
        The mean loss over epochs.
    """
    leaves = Private(*(parameter.detach().requires_grad_() for parameter in private))
    labels = torch.zeros(len(history) + negatives.shape[1])
    labels[: len(history)] = 1
    losses = 0.0
    for drawn in negatives:
        samples = torch.cat([history, drawn])
        rows = views[samples].requires_grad_()
        loss = _loss(leaves, rows, len(history), labels)
        *gradients, of_rows = torch.autograd.grad(loss, [*leaves, rows])
        with torch.no_grad():
            for k, (parameter, gradient) in enumerate(zip(leaves, gradients, strict=True)):
                parameter.sub_(gradient, alpha=rates.router if k < 4 else rates.head)
        total.index_add_(0, samples, of_rows)
        losses += loss.item()
    return losses / len(negatives)


def _loss(private: Private, rows: Tensor, n_history: int, labels: Tensor) -> Tensor:
    pooled = rows[:n_history].mean(dim=0).flatten()
    hidden = torch.relu(pooled @ private.hidden_kernel + private.hidden_bias)
    weights = torch.softmax(hidden @ private.out_kernel + private.out_bias, dim=0)
    query = torch.outer(weights, private.theta).flatten()
    scores = rows.flatten(1) @ query + private.bias
    return functional.binary_cross_entropy_with_logits(scores, labels)
