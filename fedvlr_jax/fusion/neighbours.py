"""Each item's nearest neighbours by the similarity of its frozen features."""

import numpy as np
from jaxtyping import Float, Int32

NEIGHBOURS = 10
_ROWS_AT_ONCE = 1024


def nearest(
    image: Float[np.ndarray, "items image_width"] | None,
    text: Float[np.ndarray, "items text_width"] | None,
    k: int = NEIGHBOURS,
) -> Int32[np.ndarray, "items neighbours"]:
    """The k other items with the largest cosine similarity, added over image and text.

    Args:
        image: image features, None where there are none.
        text: text features; one of the two is there.
        k: neighbours of every item; all others where there are fewer.
    """
    rows = directions(image, text)
    k = min(k, len(rows) - 1)
    found = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        here = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        similarity = rows[here] @ rows.T
        similarity[np.arange(len(here)), here] = -np.inf
        found.append(np.argpartition(-similarity, k - 1, axis=1)[:, :k])
    return np.concatenate(found).astype(np.int32)


def directions(
    image: Float[np.ndarray, "items image_width"] | None,
    text: Float[np.ndarray, "items text_width"] | None,
) -> Float[np.ndarray, "items width"]:
    """Rows whose products are the cosine similarities of items, added over image and text.

    Args:
        image: image features, None where there are none.
        text: text features; one of the two is there.
    """
    parts = []
    for rows in (image, text):
        if rows is not None:
            rows = np.asarray(rows, np.float32)
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            parts.append(rows / np.maximum(length, np.finfo(np.float32).tiny))
    return np.concatenate(parts, axis=1)
