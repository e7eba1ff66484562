import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.analysis import popularity
from fedvlr_jax.data.split import split_clients
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.errors import UserError


def clients(data):
    """Everything that is known of every client, as tuples."""
    found = data.interactions
    rows = itertools.pairwise(found.offsets)
    histories = [tuple(found.items[a:b].tolist()) for a, b in rows]
    preference = map(tuple, data.planted.preference.tolist())
    return list(zip(histories, found.valid.tolist(), found.test.tolist(), preference, strict=True))


@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 99), n=st.integers(6, 30))
def test_the_split_is_a_partition_that_keeps_all_of_a_client(share, seed, n):
    data = generate(n, 40, 0, 0.3, seed=1)
    members, newcomers = split_clients(data, share, seed)
    assert newcomers.interactions.n_clients == round(share * n)
    assert sorted(clients(members) + clients(newcomers)) == sorted(clients(data))
    in_order = {client: place for place, client in enumerate(clients(data))}
    for part in (members, newcomers):
        places = [in_order[client] for client in clients(part)]
        assert places == sorted(places)
        assert part.catalogue is data.catalogue
        assert part.interactions.n_items == 40
        assert list(part.interactions.own) == list(range(part.interactions.n_clients))


def test_warm_is_what_members_have_in_train():
    members, newcomers = split_clients(generate(40, 60, 3, 0.3, seed=0), 0.4, seed=2)
    trained_on = set(members.interactions.items.tolist())
    for part in (members, newcomers):
        for split in ("valid", "test"):
            held_out = getattr(part.interactions, split).tolist()
            expected = [item in trained_on for item in held_out]
            assert part.interactions.warm(split).tolist() == expected
            assert not all(expected)
    # So ranking by popularity is what members' popularity gives newcomers.
    ranks = popularity.held_out_ranks(newcomers.interactions, newcomers.interactions.test, seed=0)
    counts = np.bincount(members.interactions.items, minlength=60)
    for (history, _, item, _), rank in zip(clients(newcomers), ranks.tolist(), strict=True):
        others = np.delete(counts, [*history, item])
        assert (others > counts[item]).sum() <= rank <= (others >= counts[item]).sum()


def test_the_seed_decides_who_joins():
    data = generate(50, 40, 0, 0.3, seed=1)
    prints = [split_clients(data, 0.3, seed)[1].fingerprint() for seed in (0, 1, 0)]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.001, 0.999, 1.0, 2.0])
def test_a_share_that_leaves_nobody_is_a_sentence(share):
    with pytest.raises(UserError, match="newcomers among 20 clients: expected"):
        split_clients(generate(20, 40, 0, 0.3, seed=1), share, seed=0)
