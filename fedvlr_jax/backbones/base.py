"""What a federated recommender has to say for FedVLR to be plugged into it.

A backbone knows item vectors and its private parameters; it knows nothing of views, routers or
other clients. One file each; `fedvlr_jax.backbones.get` finds them by flag name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

Head = Any  # a pytree of float arrays


@dataclass(frozen=True)
class Backbone:
    """A federated recommender.

    Attributes:
        name: its flag value.
        init_head: (key, dim) -> private head parameters of one client.
        score: (head, item vectors (n, dim)) -> scores (n,).
        weight: (number of train items) -> the client's weight alpha_u before normalization.
        linear: where s = theta . x + b, head -> (theta (dim,), b ()); None for any other head.
            It lets scores be taken as one product of views and head, never forming x.
    """

    name: str
    init_head: Callable[[Array, int], Head]
    score: Callable[[Head, Float[Array, "n dim"]], Float[Array, " n"]]
    weight: Callable[[Array], Float[Array, ""]]
    linear: Callable[[Head], tuple[Float[Array, " dim"], Float[Array, ""]]] | None = None
