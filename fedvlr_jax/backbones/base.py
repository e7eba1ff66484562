"""What a federated recommender has to say for FedVLR to be plugged into it.

A backbone knows item vectors and its own parameters; it knows nothing of views, routers or other
clients. One file each; `fedvlr_jax.backbones.get` finds them by flag name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Bool, Float

Head = Any  # a pytree of float arrays: a client's prediction parameters
Network = Any  # a pytree of float arrays: what the backbone shares beside item embeddings, or None


@dataclass(frozen=True)
class OwnRows:
    """A client's own vectors of the items that it can touch: its history and its negatives.

    They start at zero and never leave the device.

    Attributes:
        combine: (item vectors (n, dim), own vectors (n, dim), whether the client has trained yet)
            -> what the head scores (n, dim).
        with_head: True: they take part in every local epoch and step with the head, and are kept
            from round to round. False: they are set to the item vectors when the head's epochs are
            done, and fine-tuned for as many epochs more, everything else held.
        penalty: (item vectors, own vectors, round counted from 0) -> a term of every sample's loss
            (n,); None for none. Only where `with_head`.
    """

    combine: Callable[
        [Float[Array, "n dim"], Float[Array, "n dim"], Bool[Array, ""]], Float[Array, "n dim"]
    ]
    with_head: bool
    penalty: (
        Callable[[Float[Array, "n dim"], Float[Array, "n dim"], Array], Float[Array, " n"]] | None
    ) = None


@dataclass(frozen=True)
class Backbone:
    """A federated recommender.

    Attributes:
        name: its flag value.
        init_head: (key, dim) -> private head parameters of one client.
        score: (network, head, item vectors (n, dim)) -> scores (n,).
        weight: (number of train items) -> the client's weight alpha_u before normalization.
        linear: where s = theta . x + b, head -> (theta (dim,), b ()); None for any other head.
            It lets scores be taken as one product of views and head, never forming x.
        of_theta: theta (dim,) -> the head with s = theta . x; None where clients cannot solve for
            their heads. Only where `linear`, and without `own_rows`.
        init_network: (key, dim) -> parameters that all clients share and the server learns, beside
            the item embeddings; None for most.
        own_rows: a client's own item vectors, None for most.
        server_penalty: (item embeddings D (items, d), round counted from 0) -> a term that the
            server's step adds to the loss.
    """

    name: str
    init_head: Callable[[Array, int], Head]
    score: Callable[[Network, Head, Float[Array, "n dim"]], Float[Array, " n"]]
    weight: Callable[[Array], Float[Array, ""]]
    linear: Callable[[Head], tuple[Float[Array, " dim"], Float[Array, ""]]] | None = None
    init_network: Callable[[Array, int], Network] = lambda _key, _dim: None
    own_rows: OwnRows | None = None
    server_penalty: Callable[[Float[Array, "items d"], Array], Float[Array, ""]] | None = None
    of_theta: Callable[[Float[Array, " dim"]], Head] | None = None

    @property
    def can_solve(self) -> bool:
        """Whether clients can solve for their heads."""
        return None not in (self.linear, self.of_theta) and self.own_rows is None
