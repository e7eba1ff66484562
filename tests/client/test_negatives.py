import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.client.negatives import counted, draw_pool, sample_negatives, sample_slots

N_ITEMS = 12


# One program for every length of a history.
sampled = jax.jit(sample_negatives, static_argnums=(2, 3))


def padded(history, width, n_items=N_ITEMS):
    return jnp.array(sorted(history) + [n_items] * (width - len(history)), jnp.int32)


@given(
    history=st.sets(st.integers(0, N_ITEMS - 1), min_size=1, max_size=N_ITEMS - 1),
    seed=st.integers(0, 2**32 - 1),
    extra=st.integers(0, 9),
)
def test_negatives_are_outside_the_history_whatever_the_padding(history, seed, extra):
    key = jax.random.key(seed)
    exact = np.asarray(sampled(key, padded(history, len(history)), N_ITEMS, 3))
    assert not set(exact.ravel().tolist()) & history
    assert exact.min() >= 0
    assert exact.max() < N_ITEMS
    wider = np.asarray(sampled(key, padded(history, len(history) + extra), N_ITEMS, 3))
    np.testing.assert_array_equal(wider[: len(history)], exact)


def test_negatives_are_uniform_over_all_other_items():
    history = {0, 3, 4, 11}
    keys = jax.random.split(jax.random.key(0), 5000)
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda k: sample_negatives(k, padded(history, 6), N_ITEMS, 2)))(keys)
    )[:, :4]
    counts = np.bincount(drawn.ravel(), minlength=N_ITEMS)
    assert counts[sorted(history)].sum() == 0
    others = counts[[i for i in range(N_ITEMS) if i not in history]]
    expected = drawn.size / 8
    # Chi-square with 7 degrees of freedom: 24.3 is exceeded once in a thousand seeds.
    assert ((others - expected) ** 2 / expected).sum() < 24.3


def test_places_and_epochs_draw_independently():
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(
        jax.vmap(lambda k: sample_negatives(k, padded({2}, 2, 7), 7, 2))(keys)
    ).reshape(len(keys), -1)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.07


@given(
    history=st.sets(st.integers(0, N_ITEMS - 1), min_size=1, max_size=N_ITEMS - 1),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, N_ITEMS + 3),
    extra=st.integers(0, 5),
)
def test_a_pool_holds_distinct_items_outside_the_history(history, seed, size, extra):
    key = jax.random.key(seed)
    pool = np.asarray(draw_pool(key, padded(history, len(history)), N_ITEMS, size))
    real = pool[pool < N_ITEMS]
    assert len(real) == min(size, N_ITEMS - len(history))
    assert (pool[: len(real)] < N_ITEMS).all(), "padding comes last"
    assert len(set(real.tolist())) == len(real)
    assert not set(real.tolist()) & history
    wider = np.asarray(draw_pool(key, padded(history, len(history) + extra), N_ITEMS, size))
    np.testing.assert_array_equal(wider, pool)


def test_pools_are_uniform_and_so_are_draws_from_them():
    n_items, history, clients = 40, padded({3, 7, 20}, 4, 40), 6000
    keys = jax.random.split(jax.random.key(2), clients)
    pools = jax.jit(jax.vmap(lambda k: draw_pool(k, history, n_items, 10)))(keys)
    share = np.bincount(np.asarray(pools).ravel(), minlength=n_items) / clients
    p = 10 / 37
    outside = [i for i in range(n_items) if i not in (3, 7, 20)]
    assert np.abs(share[outside] - p).max() < 5 * np.sqrt(p * (1 - p) / clients)
    assert share[[3, 7, 20]].sum() == 0
    # Seven of ten places are there; draws meet each alike and never the padding.
    pool = jnp.array([1, 2, 4, 5, 6, 8, 9, n_items, n_items, n_items])
    slots = jax.vmap(lambda k: sample_slots(k, pool, n_items, 2, 3))(keys)
    counts = np.bincount(np.asarray(slots).ravel(), minlength=10)
    assert counts[7:].sum() == 0
    expected = slots.size / 7
    # Chi-square with 6 degrees of freedom: 22.5 is exceeded once in a thousand seeds.
    assert ((counts[:7] - expected) ** 2 / expected).sum() < 22.5


@given(items=st.lists(st.integers(0, N_ITEMS), min_size=1, max_size=150))
def test_items_are_counted(items):
    expected = np.bincount(items, minlength=N_ITEMS + 1)[:N_ITEMS]
    np.testing.assert_array_equal(counted(jnp.array(items), N_ITEMS), expected)
