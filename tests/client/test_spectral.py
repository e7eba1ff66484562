"""What one client uploads in a warm round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax import backbones
from fedvlr_jax.client.model import ClientData, ClientModel
from fedvlr_jax.client.privacy import clipped
from fedvlr_jax.client.update import LocalTraining
from fedvlr_jax.client.ways import choose
from tests.client.alone import rates, sent, table, whole_round

N_ITEMS = 12
HISTORY = [1, 4, 5, 9]
MODEL = ClientModel(backbones.get("fedavg"), 3, 8, routed=True)
COLUMNS = np.random.default_rng(0).standard_normal((N_ITEMS, 1, 5)).astype("f4")


def upload_of(mode, history, width=6, dense=False):
    places = jnp.asarray(history + [N_ITEMS] * (width - len(history)), jnp.int32)
    broadcast = sent(COLUMNS if mode == "products" else np.zeros((N_ITEMS, 1, 0)))
    training = LocalTraining(MODEL, 1, 2, "sgd", mode=mode, dense=dense)
    data, key = ClientData(jnp.int32(0), places), jax.random.key(0)
    way = choose(training)
    return whole_round(way, training, broadcast, None, data, rates(1.0, 1.0), key)[1]


def has(history):
    return np.isin(np.arange(N_ITEMS), history).astype("f4")


@pytest.mark.parametrize("history", [HISTORY, []], ids=len)
def test_it_is_the_history_times_itself_and_nothing_else(history):
    own = has(history)
    pairs, products = (upload_of(mode, history) for mode in ("pairs", "products"))
    dense = upload_of("pairs", history, dense=True)
    for upload in pairs, dense:
        np.testing.assert_array_equal(table(upload, N_ITEMS), np.outer(own, own))
    expected = np.outer(own, np.r_[own @ COLUMNS[:, 0], 1])
    np.testing.assert_allclose(table(products, N_ITEMS), expected, atol=1e-6)
    for upload in pairs, dense, products:
        assert upload.shared is None
        assert upload.squares is None
        assert float(upload.loss) == 0
        assert float(upload.weight) == bool(history)


@pytest.mark.parametrize(
    ("mode", "dense"), [("pairs", False), ("pairs", True), ("products", False)]
)
def test_it_is_clipped_like_any_other(mode, dense):
    upload = upload_of(mode, HISTORY, dense=dense)
    whole = table(upload, N_ITEMS)
    found = table(clipped(upload, jnp.float32(0.5)), N_ITEMS)
    assert np.linalg.norm(found) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(found, whole * 0.5 / np.linalg.norm(whole), atol=1e-6)
