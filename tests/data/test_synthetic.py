import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data.synthetic import generate


def test_population_has_the_promised_shape():
    data = generate(3000, 400, 0, 0.3, seed=1)
    found = data.interactions
    lengths = found.lengths
    assert found.n_clients == 3000
    assert lengths.min() >= 5
    assert lengths.max() <= 200
    assert 14.5 < lengths.mean() < 17.5
    assert np.log(lengths).std() > 0.5
    assert (found.valid >= 0).all()
    assert (found.test >= 0).all()
    for rows in (data.catalogue.image, data.catalogue.text):
        assert rows.shape == (400, 512)
        assert rows.dtype == np.float16
        np.testing.assert_allclose(np.linalg.norm(rows.astype("f4"), axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(data.planted.preference.sum(axis=1), 1, atol=1e-5)


@given(seed=st.integers(0, 1000), length=st.sampled_from([0, 1, 9]), clients=st.integers(1, 40))
def test_no_item_is_repeated_within_a_client(seed, length, clients):
    found = generate(clients, 30, length, 0.3, seed).interactions
    if length:
        np.testing.assert_array_equal(found.lengths, length)
    for user in range(clients):
        train = found.items[found.offsets[user] : found.offsets[user + 1]]
        everything = [*train, found.valid[user], found.test[user]]
        assert len(set(everything)) == len(everything)
        assert (np.diff(train) > 0).all()
        assert min(everything) >= 0
        assert max(everything) < 30


def test_a_larger_population_extends_a_smaller_one():
    small, large = (generate(n, 100, 0, 0.3, seed=2) for n in (300, 1300))
    end = small.interactions.offsets[-1]
    np.testing.assert_array_equal(small.interactions.items, large.interactions.items[:end])
    np.testing.assert_array_equal(small.interactions.test, large.interactions.test[:300])
    np.testing.assert_array_equal(small.planted.preference, large.planted.preference[:300])
    np.testing.assert_array_equal(small.catalogue.image, large.catalogue.image)


def test_seeds_differ_and_repeat():
    prints = [generate(50, 40, 0, 0.3, seed).fingerprint() for seed in (0, 1, 0)]
    assert prints[0] == prints[2] != prints[1]


def test_popularity_is_skewed():
    popularity = np.sort(generate(2000, 400, 16, 0.3, seed=0).interactions.popularity)[::-1]
    assert popularity[:40].sum() > 0.25 * popularity.sum()


def test_planted_preferences_decide_what_is_liked():
    # Items of a client that cares about images alone are alike in image features, more than those
    # of a client that cares about text alone, and the other way round.
    data = generate(3000, 400, 16, 0.1, seed=3)
    items = data.interactions.items.reshape(-1, 16)
    alike = {}
    for name, rows in (("image", data.catalogue.image), ("text", data.catalogue.text)):
        own = rows.astype("f4")[items]
        alike[name] = np.einsum("uif,ujf->uij", own, own).mean(axis=(1, 2))
    fans = {name: data.planted.preference[:, m] > 0.95 for m, name in enumerate(alike)}
    assert min(fan.sum() for fan in fans.values()) > 100
    for name, other in (("image", "text"), ("text", "image")):
        assert alike[name][fans[name]].mean() > 2 * alike[name][fans[other]].mean()


def test_concentration_spreads_preferences():
    populations = [generate(500, 40, 5, c, seed=0) for c in (0.1, 1.0, 100.0)]
    spread = [p.planted.preference.std(axis=0).mean() for p in populations]
    assert spread[0] > spread[1] > spread[2]


def test_ten_thousand_clients_take_at_most_ten_seconds():
    start = time.perf_counter()
    data = generate(10_000, 2_000, 0, 0.3, seed=0)
    assert time.perf_counter() - start < 10
    assert data.interactions.n_clients == 10_000
    assert data.interactions.lengths.mean() == pytest.approx(16, abs=0.5)
