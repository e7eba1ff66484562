"""Compressed uploads beside a loop over clients in plain NumPy; bytes beside actual encodings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedvlr_jax
from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.client import compression
from fedvlr_jax.client.compression import BLOCK, Codes
from fedvlr_jax.client.encoding import Message, decode, encode
from fedvlr_jax.errors import Stopped, UserError
from fedvlr_jax.protocol import CohortSum
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.federated_round import sent_by, train_cohort
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.private import Private
from tests import worlds
from tests.simulation.test_federated_round import close

N_ITEMS, LENGTHS = worlds.N_ITEMS, np.array(worlds.LENGTHS)


def rows_like(seed, n=5, width=24):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_steps_are_right_on_average_and_never_further_than_the_next(bits):
    rows = rows_like(0)
    draw = jax.jit(
        jax.vmap(lambda k: compression.quantized(jnp.array(rows), bits, k, shrinks=False))
    )
    codes = draw(jax.random.split(jax.random.key(0), 4000))
    assert 0 <= codes.steps.min() <= codes.steps.max() < 2**bits
    found = np.asarray(jax.vmap(lambda c: compression.decoded(c, bits))(codes))
    step = 2 * np.abs(rows).max(axis=1, keepdims=True) / (2**bits - 1)
    assert (np.abs(found - rows) <= step * (1 + 1e-5)).all()
    assert (np.abs(found.mean(axis=0) - rows) < 5 * step / 2 / np.sqrt(4000) + 1e-5).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_with_feedback_what_is_sent_is_nearer_than_nothing(bits):
    rows = rows_like(1)
    draw = jax.vmap(lambda k: compression.quantized(jnp.array(rows), bits, k, shrinks=True))
    codes = draw(jax.random.split(jax.random.key(0), 500))
    found = np.asarray(jax.vmap(lambda c: compression.decoded(c, bits))(codes))
    errors = np.square(found - rows).sum(axis=2).mean(axis=0)
    squares = np.square(rows).sum(axis=1)
    plain = jax.vmap(lambda k: compression.quantized(jnp.array(rows), bits, k, shrinks=False))
    unbiased = jax.vmap(lambda c: compression.decoded(c, bits))(
        plain(jax.random.split(jax.random.key(0), 500))
    )
    variance = np.square(np.asarray(unbiased) - rows).sum(axis=2).mean(axis=0)
    # |x|^2 v / (|x|^2 + v), below |x|^2 whatever v is.
    np.testing.assert_allclose(errors, squares * variance / (squares + variance), rtol=0.1)
    assert (errors < squares).all()


@given(st.integers(0, 10_000), st.integers(0, 9), st.integers(1, 8))
@settings(max_examples=25)
def test_the_largest_rows_are_those_with_the_largest_norms(seed, most, n):
    rows = rows_like(seed, n, 3)
    found = np.asarray(compression.largest(jnp.array(rows), most))
    norms = np.linalg.norm(rows, axis=1)
    assert found.sum() == (min(most, n) if most else n)
    assert norms[found].min(initial=np.inf) >= norms[~found].max(initial=0)


def test_a_row_of_zeros_stays_one():
    codes = compression.quantized(jnp.zeros((2, 4)), 3, jax.random.key(0), shrinks=True)
    np.testing.assert_array_equal(compression.decoded(codes, 3), np.zeros((2, 4)))


def of_numpy(rows, bits, drawn, shrinks):
    """What the server gets of some rows, number by number."""
    if not bits:
        return rows
    last, found = 2**bits - 1, np.zeros_like(rows)
    for r, row in enumerate(rows):
        scale = np.abs(row).max()
        if not scale:
            continue
        variance = 0.0
        for c, x in enumerate(row):
            place = (x / scale + 1) * last / 2
            below = min(np.floor(place), last - 1)
            up = drawn[r, c] < np.float32(place - below)
            found[r, c] = (below + up) * 2 / last - 1
            variance += (2 * scale / last) ** 2 * (place - below) * (1 - place + below)
        square = (row**2).sum()
        found[r] *= scale * (square / (square + variance) if shrinks else 1)
    return found


def by_a_loop(own, n_rounds, seed=2):
    """Server parameters after every round, from plain uploads of one client after the other."""
    part = {"upload_bits": 0, "upload_rows": 0, "error_feedback": "on"} | own
    plain = worlds.simulation(**own | {"upload_bits": 0, "upload_rows": 0, "devices": 1})
    federation, features, rates = plain.federation, plain.features, plain.rates
    server = federation.server
    exact, views = server.exact, len(server.fusion.views)
    local = server.mode == "local"
    width = 8 * (1 if local else views)
    feeds = part["error_feedback"] == "on"
    state, owed, found = plain.initial_state(seed), {}, []
    alone = jax.jit(train_cohort, static_argnums=0)
    for number in range(n_rounds):
        sent = jax.jit(sent_by, static_argnums=0)(federation, state, features, rates)
        private, total = state.private, None
        for user, length in enumerate(LENGTHS.tolist()):
            who = plain.population.client == user
            private, sums, _ = alone(
                federation, sent, Private(private), plain.population, who, rates, state.key
            )
            private, sums = private.states, jax.tree.map(lambda x: np.array(x[0]), sums)
            history = worlds.histories(worlds.dataset())[user]
            # Solved heads draw by the place in the history, the others by item.
            items = history if exact else np.arange(N_ITEMS)
            key = keys.for_round(state.key, keys.ROUNDING, jnp.int32(number))
            row_key, dense_key = jax.random.split(jax.random.fold_in(key, user))
            drawn = np.asarray(jax.random.uniform(row_key, (N_ITEMS, width)))
            leaves, structure = jax.tree.flatten(sums.shared)
            dense = [leaf.ravel() for leaf in leaves]
            if sums.squares is not None:
                dense.append(sums.squares[np.tril_indices(width)])
            dense = np.concatenate([*dense, np.zeros(0, np.float32)])
            rows_owed, dense_owed = owed.get(
                user, (np.zeros((N_ITEMS, width), np.float32), np.zeros_like(dense))
            )
            touched = [i for i in items if sums.gradient[i].any()]
            rows = {i: sums.gradient[i] + rows_owed[i] for i in touched}
            most = part["upload_rows"] or len(rows)
            kept = sorted(rows, key=lambda i: -np.square(rows[i]).sum())[:most]
            gradient, rows_owed = np.zeros_like(sums.gradient), rows_owed.copy()
            for i, row in rows.items():
                place = items.tolist().index(i)
                if i in kept:
                    gradient[i] = of_numpy(
                        row[None], part["upload_bits"], drawn[place][None], feeds
                    )[0]
                rows_owed[i] = row - gradient[i]
            dense = dense + dense_owed
            blocks = -(-len(dense) // BLOCK)
            drawn = np.asarray(jax.random.uniform(dense_key, (blocks, BLOCK)))
            blocked = np.pad(dense, (0, blocks * BLOCK - len(dense))).reshape(blocks, BLOCK)
            sent_dense = of_numpy(blocked, part["upload_bits"], drawn, feeds).ravel()[: len(dense)]
            if feeds:
                owed[user] = rows_owed, dense - sent_dense
            rest, shared = sent_dense, []
            for leaf in leaves:
                shared.append(rest[: leaf.size].reshape(leaf.shape))
                rest = rest[leaf.size :]
            squares = None
            if sums.squares is not None:
                lower = np.zeros((width, width), np.float32)
                lower[np.tril_indices(width)] = rest
                squares = lower + np.tril(lower, -1).T
            assert length
            own_sum = CohortSum(
                gradient, jax.tree.unflatten(structure, shared), sums.weight, sums.loss, squares
            )
            total = own_sum if total is None else jax.tree.map(np.add, total, own_sum)
        gathered = aggregate.gathered(server, state.server, features, total)
        noise = aggregate.Noise(jax.random.key(0), rates.gradient_noise)
        after = aggregate.step(server, state.server, gathered, state.round, rates.server, noise)
        state = state._replace(server=after, private=private, round=state.round + 1)
        found.append(after.params)
    return found


SGD = {"server_optimizer": "sgd", "server_lr": 0.5, "dim": 8}
EXACT = SGD | {"client_solver": "exact"}
SLOW = pytest.mark.slow
COMPRESSORS = [
    EXACT | {"upload_bits": 1},
    EXACT | {"upload_bits": 2, "upload_rows": 3},
    pytest.param(EXACT | {"upload_bits": 8}, marks=SLOW),
    pytest.param(EXACT | {"upload_bits": 4, "error_feedback": "off"}, marks=SLOW),
    pytest.param(EXACT | {"upload_rows": 2}, marks=SLOW),
    SGD | {"upload_bits": 3, "upload_rows": 4},
    pytest.param(SGD | {"upload_bits": 2, "client_mode": "local"}, marks=SLOW),
    pytest.param(SGD | {"upload_bits": 2, "backbone": "fedncf"}, marks=SLOW),
]


@pytest.mark.parametrize("own", COMPRESSORS, ids=str)
def test_rounds_are_those_of_a_loop_over_clients(own):
    expected = by_a_loop(own, 3)
    for devices in (1, 8):
        simulation = worlds.simulation(**own, devices=devices, buckets=devices)
        trainer = OnDevice(simulation, [2])
        trainer.compile()
        for params in expected:
            with jax.transfer_guard("disallow"):
                trainer.round()
            # A draw that lies next to the place of a number may fall on either side of it.
            close(trainer.states.server.params, params, 1e-5)


@given(st.integers(0, 10_000), st.integers(0, 8), st.integers(1, 30), st.integers(0, 12))
@settings(max_examples=100)
def test_bytes_are_those_of_the_actual_encoding(seed, bits, length, most):
    rng = np.random.default_rng(seed)
    n_views, dim, network = rng.integers(1, 4), rng.integers(1, 40), rng.integers(0, 600)
    width = int(n_views * dim)
    numbers = int(network) + width * (width + 1) // 2
    items = np.sort(rng.choice(500, length, replace=False)).astype(np.int32)[: most or None]
    rows = rng.standard_normal((len(items), width)).astype(np.float32)
    blocks = -(-numbers // BLOCK)
    dense = np.zeros(blocks * BLOCK, np.float32)
    dense[:numbers] = rng.standard_normal(numbers)
    row_codes, dense_codes = rows, dense[:numbers]
    if bits:
        row_codes, dense_codes = (
            Codes(
                rng.integers(0, 2**bits, x.shape).astype(np.int32),
                np.abs(x).max(axis=1, initial=0),
            )
            for x in (rows, dense.reshape(blocks, BLOCK))
        )
    weight, loss = np.float32(rng.standard_normal(2)).tolist()
    message = Message(items, row_codes, dense_codes, numbers, weight, loss)
    content = encode(message, bits)
    protocol = Protocol(
        500, int(n_views), int(dim), int(network), 0, 0, 0,
        local=False, exact=True, bits=bits, rows=most,
    )  # fmt: skip
    assert protocol.upload_bytes(np.array([length])).tolist() == [len(content)]
    found = decode(content, bits, width, numbers)
    np.testing.assert_array_equal(found.items, items)
    assert (found.weight, found.loss) == (weight, loss)
    if not bits:
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.dense, dense[:numbers])
        return
    np.testing.assert_array_equal(found.rows.steps, row_codes.steps)
    np.testing.assert_array_equal(found.rows.scales, row_codes.scales)
    np.testing.assert_array_equal(
        found.dense.steps.ravel()[:numbers], dense_codes.steps.ravel()[:numbers]
    )
    np.testing.assert_array_equal(found.dense.scales, dense_codes.scales)


@pytest.mark.parametrize("bits", [1, 4])
def test_clipping_bounds_what_is_sent(bits):
    simulation = worlds.simulation(**EXACT, upload_bits=bits, clip_norm=0.01, devices=2)
    state = simulation.initial_state(0)
    sent = jax.jit(sent_by, static_argnums=0)(
        simulation.federation, state, simulation.features, simulation.rates
    )
    alone = jax.jit(train_cohort, static_argnums=0)
    for user in range(3):
        _, totals, _ = alone(
            simulation.federation,
            sent,
            Private(state.private),
            simulation.population,
            simulation.population.client == user,
            simulation.rates,
            state.key,
        )
        assert np.linalg.norm(totals.gradient[0]) == pytest.approx(0.01, rel=1e-4)


def test_a_killed_run_owes_what_it_owed(tmp_path):
    config = worlds.config(**EXACT, upload_bits=2, upload_rows=3, rounds=8)
    data = worlds.dataset()
    whole = fedvlr_jax.train(config, tmp_path / "whole", dataset=data)
    for left in (3, 2):
        with pytest.raises(Stopped):
            fedvlr_jax.train(config, tmp_path / "parts", worlds.StopAfter(left), data)
    parts = fedvlr_jax.train(config, tmp_path / "parts", dataset=data)
    for name in ("valid", "test", "communication", "reliance"):
        assert whole.summary[name] == parts.summary[name]
    protocol = whole.summary["communication"]["protocol"]
    assert (protocol["bits"], protocol["rows"]) == (2, 3)


@pytest.mark.slow
def test_rounds_on_the_host_equal_those_on_the_devices(tmp_path):
    simulation = worlds.simulation(**EXACT, upload_bits=2, upload_rows=3, cohort=7, devices=2)
    here, there = OnDevice(simulation, [3]), OffDevice(simulation, 3, 4, tmp_path, 1, rounds=5)
    here.compile()
    there.compile()
    for _ in range(5):
        with jax.transfer_guard("disallow"):
            close(here.round(), there.round())
    close(here.states.server.params, there.state.server.params, 1e-5)


@pytest.mark.parametrize("own", [{"upload_bits": 9}, {"upload_bits": -1}, {"upload_rows": -1}])
def test_what_is_no_number_of_bits_or_rows_is_refused(own):
    with pytest.raises(UserError, match=rf"^--{next(iter(own))}=-?\d: expected a whole number"):
        worlds.config(**own)
