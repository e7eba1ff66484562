import dataclasses

import numpy as np
import pytest

from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.simulation.accounting import protocol_of
from tests import worlds

PLAIN = Protocol(n_items=50, n_views=3, dim=8, network=0, gamma=700, pool=0, draws=10, local=False)


def test_download_is_every_view_of_every_item():
    assert PLAIN.download_bytes() == 50 * 3 * 8 * 4
    with_network = dataclasses.replace(PLAIN, network=11)
    assert with_network.download_bytes() == (50 * 3 * 8 + 11) * 4
    local = dataclasses.replace(with_network, local=True)
    assert local.download_bytes() == (50 * 3 * 8 + 11 + 50 * 8 + 700) * 4


@pytest.mark.parametrize("pool", [0, 12])
def test_touched_items_are_what_drawing_touches(pool):
    protocol = dataclasses.replace(PLAIN, pool=pool)
    rng = np.random.default_rng(0)
    for length in (1, 3, 6):
        outside = min(pool or 50, 50 - length)
        seen = [length + len(np.unique(rng.integers(0, outside, 10 * length))) for _ in range(4000)]
        assert protocol.touched(np.array([length]))[0] == pytest.approx(np.mean(seen), abs=0.15)


def test_upload_is_a_row_per_touched_item_and_what_is_dense():
    lengths = np.array([1, 3, 6])
    rows = PLAIN.touched(lengths)
    np.testing.assert_allclose(PLAIN.upload_bytes(lengths), rows * (4 + 3 * 8 * 4) + 8)
    local = dataclasses.replace(PLAIN, local=True, network=5)
    np.testing.assert_allclose(local.upload_bytes(lengths), rows * (4 + 8 * 4) + (5 + 700 + 2) * 4)
    assert PLAIN.paper_upload_bytes() == (50 * 8 + 700 + 2) * 4


def test_a_client_that_solves_for_its_head_hands_over_its_history_and_one_matrix():
    exact = dataclasses.replace(PLAIN, exact=True)
    symmetric = 24 * 25 // 2
    assert exact.download_bytes() == (50 * 3 * 8 + symmetric + 2) * 4
    lengths = np.array([1, 3, 6])
    expected = lengths * (4 + 3 * 8 * 4) + (symmetric + 2) * 4
    np.testing.assert_allclose(exact.upload_bytes(lengths), expected)


def test_a_simulations_protocol_counts_its_parameters():
    simulation = worlds.simulation(
        backbone="fedncf", views="sum,mlp,gate", client_mode="local", negative_pool=9
    )
    found = protocol_of(simulation.federation, simulation.features)
    d, ncf = 8, (16 * 8 + 8) + (8 * 4 + 4) + (4 * 2 + 2) + (10 + 1)
    maps = 3 * (12 * d + 2 * d) + 3 * (10 * d + 2 * d) + 3 * (d * d + 2 * d)
    mlp = (3 * d * 2 * d + 2 * d) + (2 * d * d + d) + 2 * d
    gate = 3 * d * 3 * d + 3 * d
    assert found == Protocol(40, 3, d, ncf, maps + mlp + gate, 9, 6, local=True)
