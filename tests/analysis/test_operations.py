"""Operations of a client's round beside what the compiler counts in its programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.client.autodiff import AUTODIFF
from fedvlr_jax.client.local import LOCAL
from fedvlr_jax.client.model import ClientData
from fedvlr_jax.client.normal_equations import equations
from fedvlr_jax.simulation.federated_round import sent_by
from fedvlr_jax.simulation.private import stacked
from fedvlr_jax.simulation.times import work_of
from tests import worlds


def counted(function, *arguments):
    """The compiler's count of a function's operations."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def world(**own):
    simulation = worlds.simulation(dim=32, local_epochs=1, negatives=4, **own)
    state = simulation.initial_state(0)
    sent = sent_by(simulation.federation, state, simulation.features, simulation.rates)
    model = simulation.federation.training.model
    client = jax.tree.map(lambda x: x[0], stacked(model, state.private[:1]))
    return simulation, sent, client


@pytest.mark.parametrize(
    ("way", "own"),
    [
        (AUTODIFF, {}),
        (AUTODIFF, {"variant": "mlp"}),
        (AUTODIFF, {"backbone": "fedncf"}),
        (LOCAL, {"client_mode": "local"}),
    ],
    ids=["fedvlr", "mlp", "fedncf", "local"],
)
@pytest.mark.parametrize("length", [4, 16])
def test_an_epoch_takes_about_as_many_as_the_compiler_counts(way, own, length):
    simulation, sent, client = world(**own)
    training, rates = simulation.federation.training, simulation.rates.client
    data = ClientData(jnp.int32(0), jnp.arange(length, dtype=jnp.int32))
    key = jax.random.key(0)
    work = jax.jit(lambda: way.begin(training, sent, client, data, key))()
    found = counted(lambda work: way.epoch(training, sent, work, data, rates, jnp.int32(0)), work)
    expected = work_of(simulation.federation, simulation.protocol)
    # Samples beyond the 40 items are counted once, and the compiler counts all.
    samples = length * 5
    scale = samples / min(samples, worlds.N_ITEMS)
    assert 1 / 3 < scale * expected.operations(np.array([length]))[0] / found < 3


@pytest.mark.parametrize("length", [8, 64])
def test_equations_of_a_head_take_as_many_as_the_compiler_counts(length):
    simulation, sent, client = world(client_solver="exact")
    model = simulation.federation.training.model
    rows = jnp.ones((length, 3, 32))
    real = jnp.ones(length, bool)
    made = counted(
        lambda w, rows: equations(model, sent.least_squares, w, rows, real).matrix,
        model.view_weights(client, rows, real),
        rows,
    )
    solved = 2 / 3 * 32**3 + 4 * 32**2
    router = 6 * 96 * 32
    expected = 2 * (made + solved) + 4 * length * 96 + router
    found = work_of(simulation.federation, simulation.protocol).operations(np.array([length]))[0]
    assert 0.5 < found / expected < 2


def test_warm_rounds_take_what_their_products_take():
    pairs = worlds.simulation(client_solver="exact", warm_start="spectral", als_passes=1)
    warm, als = (work_of(one, pairs.protocol) for one in pairs.federation.phases)
    lengths = np.array([1, 5])
    assert warm.operations(lengths).tolist() == [1, 25]
    d = 8
    np.testing.assert_allclose(
        als.operations(lengths), 3 * lengths * d**2 + 2 / 3 * d**3 + 2 * d**2
    )
    products = worlds.simulation(client_solver="exact", warm_start="spectral", warm_basis=10)
    warm = work_of(products.federation.phases[0], products.protocol)
    assert warm.operations(lengths).tolist() == [40, 200]
