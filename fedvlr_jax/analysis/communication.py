"""Bytes that cross between the server and one client in one round, in float32 and int32."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_FLOAT, _ID = 4, 4
_BLOCK = 256  # numbers beside rows that share a scale (client/compression.py)


def neighbours_bytes(n_items: int, kept: int) -> int:
    """What a client downloads once to rank by neighbours (`--experts=neighbours`).

    An id and a weight for each of the `kept` others that an item of a history counts for.

    Example:
        >>> neighbours_bytes(1676, 1000), neighbours_bytes(40, 1000)
        (13408000, 12480)
    """
    return n_items * min(kept, n_items - 1) * (_ID + _FLOAT)


def _symmetric(rows: int) -> int:
    """Numbers of a symmetric matrix."""
    return rows * (rows + 1) // 2


@dataclass(frozen=True)
class WarmProtocol:
    """What the two sides send each other in a warm round (`--warm_start=spectral`).

    Attributes:
        n_items: number of items I.
        columns: that the server sends for every item; 0 where clients upload pairs of their items.

    Example:
        >>> pairs, products = WarmProtocol(1676, 0), WarmProtocol(1676, 80)
        >>> pairs.download_bytes(), products.download_bytes()
        (0, 536320)
        >>> [found.upload_bytes(np.array([5])).tolist() for found in (pairs, products)]
        [[88.0], [1648.0]]
    """

    n_items: int
    columns: int

    def download_bytes(self) -> int:
        """To every client of the cohort: the columns of every item, or nothing."""
        return self.n_items * self.columns * _FLOAT

    def upload_bytes(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """The upload of clients with histories of these lengths.

        An id for every item of the history, and with each the columns and one number more; or
        beside the ids one number for every pair of them, an item with itself included. Weight and
        loss come on top, as in every round.
        """
        lengths = lengths.astype(float)
        pairs = lengths * (lengths + 1) / 2
        numbers = lengths * (self.columns + 1) if self.columns else pairs
        return lengths * _ID + (numbers + 2) * _FLOAT


@dataclass(frozen=True)
class AlternatingProtocol:
    """What the two sides send each other in a round of alternating least squares (`--als_passes`).

    Attributes:
        n_items: number of items I.
        dim: width d.

    Example:
        >>> protocol = AlternatingProtocol(1676, 64)
        >>> protocol.download_bytes(), protocol.upload_bytes(np.array([5])).tolist()
        (437384, [42928.0])
    """

    n_items: int
    dim: int

    def download_bytes(self) -> int:
        """To every client of the cohort: ID embeddings, their Gramian and two numbers more."""
        return (self.n_items * self.dim + _symmetric(self.dim) + 2) * _FLOAT

    def upload_bytes(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """The upload of clients with histories of these lengths.

        An id for every item of the history, and with each a head, the symmetric matrix of its
        products, and one number more, all summed by item. Weight and loss come on top.
        """
        numbers = self.dim + _symmetric(self.dim) + 1
        return lengths.astype(float) * (_ID + numbers * _FLOAT) + 2 * _FLOAT


@dataclass(frozen=True)
class Protocol:
    """What the two sides send each other.

    Attributes:
        n_items: number of items I.
        n_views: number of views G.
        dim: width d.
        network: floats of the backbone's network.
        gamma: floats of the fusion operators' parameters.
        pool: items of a client's pool of negatives, 0 for all that it has not.
        draws: negatives that a client draws per train item and round.
        local: whether clients move copies of what is shared (client mode `local`).
        exact: whether clients solve for their heads (`--client_solver=exact`).
        by_item: whether they upload the rows of all items one by one then, as clipping needs.
        bits: of a number that is uploaded, 0 for 32.
        rows: most rows of items that are uploaded, 0 for all that are touched.

    Example:
        >>> protocol = Protocol(1676, 3, 64, network=0, gamma=70_016, pool=0, draws=20, local=False)
        >>> protocol.download_bytes()
        1287168
        >>> protocol.touched(np.array([5])).round().tolist()  # by a client with 5 train items
        [102.0]
    """

    n_items: int
    n_views: int
    dim: int
    network: int
    gamma: int
    pool: int
    draws: int
    local: bool
    exact: bool = False  # runs of before there was a choice do not say
    by_item: bool = False
    bits: int = 0
    rows: int = 0

    def download_bytes(self) -> int:
        """To every client of the cohort.

        The views of every item (asking for some would tell which items the client has) and the
        network; in client mode `local` D and gamma as well. The frozen features, which that mode
        needs, are sent once and not counted. Clients that solve for their heads get the Gramian of
        the views and two numbers more.
        """
        floats = self.n_items * self.n_views * self.dim + self.network
        if self.local:
            floats += self.n_items * self.dim + self.gamma
        if self.exact:
            floats += _symmetric(self.n_views * self.dim) + 2
        return floats * _FLOAT

    def upload_bytes(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """Expected upload of clients with histories of these lengths.

        An id and a row for every distinct item that the client touched: G d floats of gradient, or
        in client mode `local` d floats of D. Beside them the network, in client mode `local` gamma,
        and the client's weight and loss. A client that solves for its head touches its history
        only, and uploads a symmetric matrix of G d rows for all other items. With bits, numbers
        are coded as client/encoding.py writes them.
        """
        row = self.dim if self.local else self.n_views * self.dim
        dense = self.network + self.local * self.gamma
        touched = self.touched(lengths)
        if self.exact and not self.by_item:
            dense += _symmetric(self.n_views * self.dim)
        if self.rows:
            touched = np.minimum(touched, self.rows)
        blocks, left = divmod(dense, _BLOCK)
        beside = blocks * self._coded(_BLOCK) + (self._coded(left) if left else 0)
        return touched * (_ID + self._coded(row)) + beside + 2 * _FLOAT

    def _coded(self, numbers: int) -> int:
        """Bytes of so many numbers of one row or block."""
        return _FLOAT + -(-numbers * self.bits // 8) if self.bits else numbers * _FLOAT

    def paper_upload_bytes(self) -> int:
        """The paper's: gradients of D, gamma and the network, whatever the client has touched."""
        return (self.n_items * self.dim + self.gamma + self.network + 2) * _FLOAT

    def touched(self, lengths: Int[np.ndarray, " clients"]) -> Float[np.ndarray, " clients"]:
        """Expected number of distinct items that a client touches in a round.

        Its n train items are always touched; each of the others in its pool is missed by all of its
        uniform draws with probability (1 - 1/pool) ** draws. A solved head touches no others, or
        all of them by item.
        """
        if self.exact:
            return np.full(len(lengths), float(self.n_items)) if self.by_item else lengths * 1.0
        outside = self.n_items - lengths
        pool = np.minimum(self.pool, outside) if self.pool else outside
        return lengths + pool * (1 - (1 - 1 / pool) ** (self.draws * lengths))
