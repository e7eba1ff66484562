"""Bytes that cross between the server and one client in one round, in float32 and int32."""

import numpy as np
from jaxtyping import Int

_FLOAT, _ID = 4, 4


def download_bytes(n_items: int, n_views: int, dim: int) -> int:
    """The views of every item (asking for some would tell which items the client has)."""
    return n_items * n_views * dim * _FLOAT


def upload_bytes(
    lengths: Int[np.ndarray, " clients"],
    n_items: int,
    n_views: int,
    dim: int,
    epochs: int,
    negatives: int,
) -> float:
    """Expected upload of a client, averaged over clients.

    An id and G*d floats for every distinct row it touched, its weight and its loss. Its n train
    items are always touched; each of the other I - n is missed by all epochs * negatives * n
    uniform draws with probability (1 - 1/(I - n)) ** draws.
    """
    pool = n_items - lengths
    draws = epochs * negatives * lengths
    rows = lengths + pool * (1 - (1 - 1 / pool) ** draws)
    return float(rows.mean() * (_ID + n_views * dim * _FLOAT) + 2 * _FLOAT)
