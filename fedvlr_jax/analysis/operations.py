"""How many floating-point operations one client's round takes, by the length of its history.

A product of two numbers and its addition count as two. What is counted are products of vectors and
matrices; what a client does beside them is little. Tests compare the counts with those of the
compiler. A device that computes by other means than this simulator, one sample after the other,
takes as many.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Training:
    """The work of a client in any round but a warm one.

    Attributes:
        n_items: number of items I.
        n_views: number of views G.
        dim: width d.
        width: of the item vectors that a head scores.
        epochs: local epochs A.
        negatives: negative items that each train item is scored with; I at most, all together.
        routed: whether there is a router.
        exact: whether the head is solved.
        network: floats of the backbone's network, which every sample goes through.
        gamma: floats of the fusion operators, 0 where clients do not apply them.
    """

    n_items: int
    n_views: int
    dim: int
    width: int
    epochs: int
    negatives: int
    routed: bool
    exact: bool
    network: int = 0
    gamma: int = 0

    def operations(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """Of clients with histories of these lengths.

        Forward and back a sample costs three products with its row, its network and the operators
        that make it. A head that is solved takes the equations, their factor, and as much again for
        the router's gradient through the solution.
        """
        n, row = lengths.astype(float), self.n_views * self.dim
        router = 6.0 * row * self.dim if self.routed else 0.0
        if self.exact:
            equations = 2 * n * self.width**2 + 2.0 * row**2
            solution = 2 / 3 * self.width**3 + 4 * self.width**2
            return self.epochs * ((1 + self.routed) * (equations + solution) + 4 * n * row + router)
        samples = np.minimum(n * (1 + self.negatives), self.n_items)
        return self.epochs * (6 * samples * (row + self.network + self.gamma) + router)


@dataclass(frozen=True)
class Warm:
    """The work of a client in a warm round.

    Attributes:
        columns: that its history is multiplied with, 0 where it counts pairs of its items.
    """

    columns: int

    def operations(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """Of clients with histories of these lengths."""
        n = lengths.astype(float)
        return 4 * n * self.columns if self.columns else n**2


@dataclass(frozen=True)
class Alternating:
    """The work of a client in a round of alternating least squares, with embeddings of width d."""

    dim: int

    def operations(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """Of clients with histories of these lengths: a head, and a matrix for every item."""
        n, d = lengths.astype(float), self.dim
        return 2 * n * d**2 + 2 / 3 * d**3 + 2 * d**2 + n * d**2
