import numpy as np
import pytest

from fedvlr_jax.analysis import communication


def test_download_is_every_view_of_every_item():
    assert communication.download_bytes(560, 3, 64) == 560 * 3 * 64 * 4


@pytest.mark.parametrize(("length", "epochs", "negatives"), [(3, 1, 1), (5, 5, 4)])
def test_upload_is_the_mean_number_of_distinct_rows(length, epochs, negatives):
    n_items, n_views, dim = 30, 2, 8
    rng = np.random.default_rng(0)
    outside = n_items - length
    rows = [
        length + len(np.unique(rng.integers(0, outside, epochs * negatives * length)))
        for _ in range(4000)
    ]
    expected = np.mean(rows) * (4 + n_views * dim * 4) + 8
    found = communication.upload_bytes(
        np.array([length] * 3), n_items, n_views, dim, epochs, negatives
    )
    assert found == pytest.approx(expected, rel=0.01)
