import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation.accounting import padded_share
from fedvlr_jax.simulation.mesh import make_mesh
from fedvlr_jax.simulation.population import (
    Chunking,
    bucket_widths,
    histories,
    in_order,
    make_buckets,
    place,
    place_by_run,
    worthwhile_widths,
)
from tests import worlds

read = jax.jit(histories, static_argnums=(2, 3))
length_lists = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def padding(lengths, widths):
    return sum(min(w for w in widths if w >= length) - length for length in lengths)


@given(lengths=length_lists, n_buckets=st.integers(1, 4))
def test_bucket_widths_pad_the_least(lengths, n_buckets):
    widths = bucket_widths(np.array(lengths), n_buckets)
    distinct = sorted(set(lengths))
    assert list(widths) == sorted(set(widths))
    assert len(widths) <= n_buckets
    assert widths[-1] == max(lengths)
    best = min(
        padding(lengths, (*inner, distinct[-1]))
        for k in range(min(n_buckets, len(distinct)))
        for inner in itertools.combinations(distinct[:-1], k)
    )
    assert padding(lengths, widths) == best


def test_a_bucket_must_save_more_padding_than_it_costs():
    few, many = np.array([1, 30] * 10), np.array([1, 30] * 1000)
    assert worthwhile_widths(few, share=1.0, worth=1000) == (30,)
    assert worthwhile_widths(many, share=1.0, worth=1000) == (1, 30)
    assert worthwhile_widths(many, share=1.0, worth=29_001) == (30,)
    assert worthwhile_widths(many, share=0.01, worth=1000) == (30,)
    lengths = np.arange(1, 10_001) % 100 + 1
    assert worthwhile_widths(lengths, share=1.0, worth=1000) == bucket_widths(lengths, 4)


@pytest.mark.parametrize("devices", [1, 3])
def test_populations_by_run_are_those_of_each_run(devices):
    runs = [
        worlds.dataset(lengths=lengths).interactions for lengths in ((3, 1, 9, 2), (5, 12, 1, 1))
    ]
    mesh = make_mesh(devices)
    clients = in_order(4, devices)
    stacked = place_by_run(runs, clients, mesh)
    for number, interactions in enumerate(runs):
        alone = place(interactions, clients, mesh)
        for name in ("client", "length", "offset", "valid", "test"):
            np.testing.assert_array_equal(
                getattr(stacked, name)[number], getattr(alone, name), err_msg=name
            )
        # Every device has as much room for items as the run with the most of them needs.
        ours, theirs = (
            items.reshape(devices, -1) for items in (stacked.items[number], alone.items)
        )
        np.testing.assert_array_equal(ours[:, : theirs.shape[1]], theirs)
        assert (ours[:, theirs.shape[1] :] == worlds.N_ITEMS).all()


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_placed_histories_come_back(devices):
    data = worlds.dataset()
    mesh = make_mesh(devices)
    population = place(data.interactions, in_order(data.interactions.n_clients, devices), mesh)
    population = jax.device_get(population)  # NumPy compiles no slices
    rows = population.client.shape[0]
    assert rows % devices == 0
    per_device = rows // devices
    n = data.interactions.n_clients
    for user, history in enumerate(worlds.histories(data)):
        # Look at the row as its own device does: offsets count within the device's block.
        device = user // per_device
        own = slice(device * per_device, (device + 1) * per_device)
        block = population.items.shape[0] // devices
        local = population._replace(
            **{f: getattr(population, f)[own] for f in ("client", "length", "offset")},
            items=population.items[device * block : (device + 1) * block],
        )
        found = read(local, jnp.array([user % per_device, per_device]), 25, worlds.N_ITEMS)
        np.testing.assert_array_equal(found.history[0, : len(history)], history)
        np.testing.assert_array_equal(found.history[0, len(history) :], worlds.N_ITEMS)
        np.testing.assert_array_equal(found.history[1], worlds.N_ITEMS)
        np.testing.assert_array_equal(found.client, [user, -1])
    np.testing.assert_array_equal(population.valid[:n], data.interactions.valid)
    np.testing.assert_array_equal(population.client[n:], -1)


@pytest.mark.parametrize("devices", [1, 3])
def test_some_clients_can_be_placed_in_any_order(devices):
    data = worlds.dataset()
    clients = np.full((devices, 4), -1, np.int32)
    for device in range(devices):
        clients[device, :3] = [9 - device, 2 * device, 12 - device]
    population = place(data.interactions, clients, make_mesh(devices), room=50)
    assert population.items.shape == (50 * devices,)
    np.testing.assert_array_equal(population.client, clients.ravel())
    lists = worlds.histories(data)
    for row, client in enumerate(clients.ravel()):
        first = row // 4 * 50 + int(population.offset[row])
        found = population.items[first : first + int(population.length[row])]
        np.testing.assert_array_equal(found, lists[client] if client >= 0 else [])
        expected = data.interactions.valid[client] if client >= 0 else -1
        assert population.valid[row] == expected


def test_chunks_shrink_with_the_width():
    chunking = Chunking(floats=1000)
    buckets = make_buckets((4, 100), chunking, floats_per_place=5, floats_per_client=0)
    assert [tuple(b) for b in buckets] == [(0, 4, 50, 20), (4, 100, 2, 500)]
    buckets = make_buckets((4, 100), chunking, floats_per_place=5, floats_per_client=80)
    assert [tuple(b) for b in buckets] == [(0, 4, 10, 100), (4, 100, 2, 580)]
    assert Chunking(10).clients(1000) == 2
    assert Chunking(10**9).clients(1) == 512
    assert Chunking(10**9, most=40).clients(1) == 40
    assert Chunking(10, fixed=7).clients(1000) == 7


def test_padded_share_is_reported():
    simulation = worlds.simulation(worlds.dataset(lengths=(2, 2, 4, 10)), buckets=2)
    assert [b.width for b in simulation.federation.buckets] == [4, 10]
    assert padded_share(simulation.federation, np.array([2, 2, 4, 10])) == pytest.approx(4 / 22)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="--devices=9: expected at most the 8 devices"):
        make_mesh(9)
