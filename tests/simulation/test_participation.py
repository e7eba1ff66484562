"""Who takes part: dropouts and uneven availability; clipped and noised rounds of a whole cohort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.federated_round import (
    drawn,
    is_late,
    train_cohort,
)
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.sampling import choose_clients
from tests import worlds
from tests.simulation.test_federated_round import close, moved, one_round, whole_round


def taking_part(simulation, rounds):
    federation, words = simulation.federation, keys.from_seed(0)

    @jax.jit
    @jax.vmap
    def draw(number):
        return jnp.logical_and(
            *drawn(federation, words, number, simulation.rates.dropout, federation.cohort)
        )

    return np.asarray(draw(jnp.arange(rounds)))


def test_dropouts_stay_away_independently():
    simulation = worlds.simulation(dropout=0.3, cohort=8)
    came = taking_part(simulation, 4000)
    # Each of 13 clients is sampled with probability 8/13 and stays with 0.7.
    p = 8 / 13 * 0.7
    assert np.abs(came.mean(axis=0) - p).max() < 5 * np.sqrt(p * (1 - p) / 4000)
    assert came.sum(axis=1).mean() == pytest.approx(8 * 0.7, abs=5 * np.sqrt(8 * 0.21 / 4000))


def test_clients_that_drop_out_keep_their_state():
    simulation = worlds.simulation(dropout=0.5)
    state = moved(simulation)
    after, (loss, *_) = whole_round(simulation, state)
    came = np.asarray(worlds.came(simulation.federation, state.key, state.round, simulation.rates))
    assert 0 < came.sum() < len(came)
    old, new = (np.asarray(s.private) for s in (state, after))
    np.testing.assert_array_equal((old != new).any(axis=1), came)
    assert np.isfinite(float(loss))


def test_a_round_without_anybody_changes_nothing():
    simulation = worlds.simulation(dropout=0.999999, server_optimizer="sgd")
    state = simulation.initial_state(0)
    after, (loss, came, _) = whole_round(simulation, state)
    close(after.server.params, state.server.params, tolerance=0)
    assert float(loss) == 0
    assert came.by_length.sum() == 0
    assert int(after.diverged) == -1


MODES = ["accumulate", pytest.param("local", marks=pytest.mark.slow)]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_late_is_added_to_the_next_round(mode):
    settings = {"server_optimizer": "sgd", "server_lr": 0.5, "client_mode": mode, "devices": 1}
    simulation = worlds.simulation(late=0.4, **settings)
    federation, rates = simulation.federation, simulation.rates
    server, features, population = federation.server, simulation.features, simulation.population

    @jax.jit
    def some(sent, private, who, key):
        private, totals, _ = train_cohort(
            federation, sent, Private(private), population, who, rates, key
        )
        in_time, late = (jax.tree.map(lambda x, k=k: x[k], totals) for k in range(2))
        return private.states, (in_time, late)

    @jax.jit
    def gathered(before, total):
        return aggregate.gathered(server, before, features, total)

    @jax.jit
    def stepped(before, found):
        noise = aggregate.Noise(jax.random.key(0), rates.gradient_noise)
        return aggregate.step(server, before, found, jnp.int32(0), rates.server, noise)

    sent_by = jax.jit(
        lambda state, n: aggregate.broadcast(server, state, features, n, rates.server)
    )
    state = moved(simulation)
    expected, private, arriving = state.server, state.private, None
    for number in range(3):
        late = is_late(state.key, jnp.int32(number), population.client, jnp.float32(0.4))
        assert 0 < late.sum() < len(late)
        sent = sent_by(expected, jnp.int32(number))
        private, (in_time, none) = some(sent, private, ~late, state.key)
        assert float(none.weight) == 0
        private, (none, later) = some(sent, private, late, state.key)
        assert float(none.weight) == 0
        found = gathered(expected, in_time)
        if arriving is not None:
            found = jax.tree.map(jnp.add, found, arriving)
        # Late gradients are of what was sent to those clients, so through its operators.
        arriving = gathered(expected, later)
        expected = stepped(expected, found)
        state, (loss, *_) = whole_round(simulation, state)
        close(state.server.params, expected.params)
        close(state.private, private)
        assert float(loss) == pytest.approx(float(found.loss / found.weight), abs=1e-5)


def test_a_first_round_with_nobody_in_time_moves_only_clients():
    simulation = worlds.simulation(late=0.999999, server_optimizer="sgd")
    state = moved(simulation)
    after, (loss, came, _) = whole_round(simulation, state)
    close(after.server.params, state.server.params, tolerance=0)
    assert float(loss) == 0
    assert came.late == came.by_length.sum() == simulation.n_clients
    assert int(after.diverged) == -1
    old, new = (np.asarray(s.private) for s in (state, after))
    assert (old != new).any()
    assert float(after.late.weight) > 0


def test_clients_are_late_independently():
    words, n = keys.from_seed(0), 3000
    draw = jax.jit(jax.vmap(lambda k: is_late(words, k, jnp.arange(13), jnp.float32(0.3))))
    late = np.asarray(draw(jnp.arange(n)))
    assert np.abs(late.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.21 / n)
    assert late.sum(axis=1).std() == pytest.approx(np.sqrt(13 * 0.21), rel=0.1)


def test_availability_weighs_the_draw_of_a_cohort():
    clients, n = jnp.arange(6), 6000
    draw = jax.jit(jax.vmap(lambda k: choose_clients(jax.random.key(k), clients, 6, 1, skew=1.0)))
    found = np.asarray(draw(jnp.arange(n))).mean(axis=0)
    rate = np.exp(np.asarray(jax.random.normal(jax.random.key(7), (6,))))
    expected = rate / rate.sum()
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / n)
    several = np.asarray(
        jax.vmap(lambda k: choose_clients(jax.random.key(k), clients, 6, 4, skew=1.0))(
            jnp.arange(100)
        )
    )
    assert (several.sum(axis=1) == 4).all()


@pytest.mark.parametrize("mode", MODES)
def test_clipping_beyond_every_norm_changes_nothing(mode):
    plain = worlds.simulation(backbone="fcf", client_mode=mode)
    wide = worlds.simulation(backbone="fcf", client_mode=mode, clip_norm=1e6)
    (loss, mean, private, _), (w_loss, w_mean, w_private, _) = (
        one_round(s, moved(s)) for s in (plain, wide)
    )
    close(mean, w_mean)
    close(private, w_private)
    close(float(loss), float(w_loss))


def test_clipping_bounds_the_mean_and_makes_all_clients_count_the_same():
    simulation, plain = worlds.simulation(clip_norm=0.01, devices=3), worlds.simulation()
    (_, _, private, _), (_, _, unclipped, _) = (one_round(s, moved(s)) for s in (simulation, plain))
    n = simulation.n_clients
    close(*(jax.tree.map(lambda x: x[:n], p) for p in (private, unclipped)))
    assert simulation.federation.training.model.backbone.weight(jnp.int32(5)) == 1


@pytest.mark.parametrize(
    "settings", [{"clip_norm": 0.1, "noise_multiplier": 2.0}, {"gradient_noise": 0.05}], ids=str
)
def test_noise_moves_the_server_by_its_size(settings):
    own = {"backbone": "fcf", "server_optimizer": "sgd", "server_lr": 1.0, "variant": "id"}
    silent = {name: 0.0 for name in settings if "noise" in name}
    loud, quiet = (worlds.simulation(**own, **s) for s in (settings, settings | silent))
    states = [whole_round(s, s.initial_state(0))[0] for s in (loud, quiet)]
    embedding = [np.asarray(s.server.params.fusion["params"]["item_embedding"]) for s in states]
    moved_by = (embedding[0] - embedding[1]).std()
    assert np.isfinite(moved_by)
    if "gradient_noise" in settings:
        assert moved_by == pytest.approx(0.05, rel=0.2)  # 320 numbers
    else:
        assert moved_by > 0


@pytest.mark.parametrize("variant", ["fedvlr", "vbpr"])
def test_a_pool_that_is_too_large_is_refused(variant):
    with pytest.raises(UserError, match=r"--negative_pool=200000000: expected at most 107374182"):
        worlds.simulation(variant=variant, negative_pool=200_000_000)
