"""The virtual clock beside an event loop in plain Python; deadlines, over-selection, buffers."""

import functools
import heapq
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedvlr_jax
from fedvlr_jax.errors import Stopped, UserError
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import buffered, clock, keys, newcomers
from fedvlr_jax.simulation.clock import DAY, Clock, Rules
from fedvlr_jax.simulation.federated_round import attendance, drawn, sent_by, train_cohort
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.simulation import build
from tests import worlds
from tests.simulation.test_federated_round import close

N = len(worlds.LENGTHS)
SLOW = pytest.mark.slow
DEVICES = pytest.mark.parametrize("devices", [1, pytest.param(8, marks=SLOW)])
SOLVERS = pytest.mark.parametrize(
    ("solver", "devices"),
    [
        ("exact", 8),
        pytest.param("exact", 1, marks=SLOW),
        pytest.param("sgd", 1, marks=SLOW),
        pytest.param("sgd", 8, marks=SLOW),
    ],
)
durations = jax.jit(clock.durations, static_argnums=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Devices of which some are a hundred times slower, and most are there for a part of a day."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("devices") / "devices.csv"
    rows = ["gflops,down_mbps,up_mbps,opens,hours,spread"]
    for _ in range(N):
        speed = 10 ** rng.uniform(-5, -3)
        rows.append(f"{speed},{speed},{speed},{rng.uniform(0, 24)},{rng.uniform(4, 24)},0.5")
    path.write_text("\n".join(rows) + "\n")
    return path


def of(table, **own):
    base = {"devices_profile": str(table), "server_optimizer": "sgd", "server_lr": 0.5}
    return worlds.simulation(**(base | own))


def took_in(simulation, state, number):
    """Milliseconds of every client in a round."""
    times = simulation.rates.times
    return np.asarray(durations(times, "", state.key, jnp.int32(number))).tolist()


def until_open(simulation, now):
    times = simulation.rates.times
    found = []
    for opens, length in zip(times.opens.tolist(), times.open_for.tolist(), strict=True):
        since = (now - opens) % DAY
        found.append(0 if since < length else DAY - since)
    return found


def test_a_client_takes_what_it_downloads_computes_and_uploads(table):
    simulation = of(table)
    state = simulation.initial_state(0)
    rows = [list(map(float, x.split(","))) for x in table.read_text().splitlines()[1:]]
    lengths = np.array(worlds.LENGTHS)
    up, down = simulation.protocol.upload_bytes(lengths), simulation.protocol.download_bytes()
    drawn = jax.random.normal(keys.for_round(state.key, keys.CLOCK, 3), (N,))
    for user, (gflops, down_mbps, up_mbps, *_, spread) in enumerate(rows):
        # 3 local epochs of a train item with 2 negatives, 3 views of width 8; a router.
        samples = min(3 * lengths[user], 40)
        work = 3 * (6 * samples * 24 + 6 * 24 * 8)
        seconds = work / gflops / 1e9 + 8e-6 * (down / down_mbps + up[user] / up_mbps)
        expected = 1000 * seconds * np.exp(spread * float(drawn[user]))
        assert took_in(simulation, state, 3)[user] == pytest.approx(expected, rel=1e-4, abs=1)


def test_times_hang_on_seed_round_and_client_alone(table):
    one, other = of(table), of(table, devices=8, chunk=2, buckets=3)
    state = one.initial_state(5)
    assert took_in(one, state, 2) == took_in(other, other.initial_state(5), 2)
    assert took_in(one, state, 2) != took_in(one, state, 3)
    assert took_in(one, state, 2) != took_in(one, one.initial_state(6), 2)


@given(st.integers(0, DAY - 1), st.integers(0, clock.LONGEST))
@settings(max_examples=30)
def test_time_goes_on_over_days(begin, more):
    after = Clock(jnp.int32(3), jnp.int32(begin)).after(jnp.int32(more))
    assert 3 * DAY + begin + more == int(after.days) * DAY + int(after.milliseconds)


def rounds_by_events(simulation, state, n_rounds):
    """Rounds by an event loop: (who counts in time, who is late, cut off, milliseconds) of each."""
    federation, rates, now = simulation.federation, simulation.rates, 0
    rules, found = federation.rules, []
    deadline = int(rates.times.deadline)
    for number in range(n_rounds):
        took, waits = took_in(simulation, state, number), until_open(simulation, now)
        before = min(waits) if rules.asked else 0
        able = [w == 0 for w in until_open(simulation, now + before)]
        sampled, stays = drawn(
            federation,
            state.key,
            jnp.int32(number),
            rates.dropout,
            rules.asked,
            jnp.array(able) if rules.asked else None,
        )
        asked = np.flatnonzero(sampled).tolist()
        events = [(took[u] + (0 if rules.asked else waits[u]), u) for u in asked if bool(stays[u])]
        heapq.heapify(events)
        wanted = rules.wanted or len(asked)
        in_time, end = [], 0
        while events and len(in_time) < wanted and events[0][0] <= deadline:
            end, user = heapq.heappop(events)
            in_time.append(user)
        # Ties come together.
        while events and events[0][0] == end and in_time:
            in_time.append(heapq.heappop(events)[1])
        if len(in_time) < wanted and (events or deadline < clock.LONGEST):
            end = deadline
        left = sorted(u for _, u in events)
        late, cut_off = (left, 0) if rules.late else ([], len(left))
        found.append((sorted(in_time), late, cut_off, before + end))
        now += before + end
    return found


SYNCHRONOUS = [
    {},
    {"dropout": 0.3},
    {"cohort": 6},
    {"cohort": 6, "over_selection": 0.5},
    {"cohort": 6, "over_selection": 0.5, "stragglers": "late"},
    {"cohort": 6, "deadline": 60.0},
    {"cohort": 6, "deadline": 60.0, "dropout": 0.3},
    {"deadline": 30000.0},
    {"cohort": 8, "deadline": 40.0, "over_selection": 0.3, "stragglers": "late"},
]


@pytest.mark.parametrize("own", SYNCHRONOUS, ids=str)
@DEVICES
def test_rounds_are_those_of_an_event_loop(table, own, devices):
    simulation = of(table, devices=devices, **own)
    state, federation = simulation.initial_state(1), simulation.federation
    attend = jax.jit(
        lambda number, time: attendance(federation, state.key, number, time, simulation.rates)
    )
    time = state.time
    for number, expected in enumerate(rounds_by_events(simulation, state, 12)):
        came, spent = attend(jnp.int32(number), time)
        late = np.flatnonzero(came.late).tolist()
        trains = np.flatnonzero(came.trains).tolist()
        found = sorted(set(trains) - set(late)), late, int(spent.cut_off), int(spent.elapsed)
        assert found == expected
        time = spent.time


def trained(simulation, state, sent, private, who):
    """States after these clients have trained on what was sent, and their gradient's sum."""
    federation = simulation.federation
    chosen = np.zeros(simulation.population.client.shape, bool)
    chosen[who] = True
    private, totals, _ = jax.jit(train_cohort, static_argnums=0)(
        federation,
        sent,
        Private(private),
        simulation.population,
        jnp.array(chosen),
        simulation.rates._replace(late=jnp.float32(0)),
        state.key,
    )
    return private.states, jax.tree.map(lambda x: x[0], totals)


def stepped(simulation, server, found, number):
    noise = aggregate.Noise(jax.random.key(0), simulation.rates.gradient_noise)
    return aggregate.step(
        simulation.federation.server,
        server,
        found,
        jnp.int32(number),
        simulation.rates.server,
        noise,
    )


@SOLVERS
@pytest.mark.parametrize("stragglers", ["late", pytest.param("drop", marks=SLOW)])
def test_who_is_late_counts_a_round_later_and_who_is_cut_off_never(
    table, solver, devices, stragglers
):
    simulation = of(
        table,
        cohort=8,
        deadline=60.0,
        stragglers=stragglers,
        devices=devices,
        client_solver=solver,
    )
    features, federation = simulation.features, simulation.federation
    state = simulation.initial_state(1)
    expected, server, private, waiting = [], state.server, state.private, None
    events = rounds_by_events(simulation, state, 5)
    assert any(x[1] or x[2] for x in events)
    for number, (in_time, late, *_) in enumerate(events):
        before = state._replace(round=jnp.int32(number), server=server)
        sent = sent_by(federation, before, features, simulation.rates)
        private, total = trained(simulation, state, sent, private, in_time)
        found = aggregate.gathered(federation.server, server, features, total)
        if waiting is not None:
            found = jax.tree.map(jnp.add, found, waiting)
        private, total = trained(simulation, state, sent, private, late)
        waiting = aggregate.gathered(federation.server, server, features, total)
        server = stepped(simulation, server, found, number)
        expected.append((server.params, private))
    trainer = OnDevice(simulation, [1])
    trainer.compile()
    for k, (params, private) in enumerate(expected):
        with jax.transfer_guard("disallow"):
            outcome = trainer.round()
        close(trainer.states.server.params, params, 1e-5)
        close(trainer.states.private, private, 1e-5)
        assert outcome.participation.late[0] == len(events[k][1])
        assert outcome.participation.cut_off[0] == events[k][2]
        assert outcome.milliseconds[0] == events[k][3]


def steps_by_events(simulation, state, n_steps):
    """A buffer by an event loop: of each step who counts, as (client, round of its beginning),
    how many came for nothing, and milliseconds."""
    federation, rates = simulation.federation, simulation.rates
    rules, now, training, found = federation.rules, 0, [], []
    for number in range(n_steps):
        begun, begins = now, now
        busy = {u for _, u, _ in training}
        if not training:
            begins += min(until_open(simulation, now))
        able = [w == 0 and u not in busy for u, w in enumerate(until_open(simulation, begins))]
        places = (rules.asked or N) - len(training)
        sampled, stays = drawn(
            federation, state.key, jnp.int32(number), rates.dropout, jnp.int32(places),
            jnp.array(able),
        )  # fmt: skip
        took = took_in(simulation, state, number)
        for u in np.flatnonzero(np.asarray(sampled & stays)).tolist():
            training.append((begins + took[u], u, number))
        heapq.heapify(training)
        buffer, in_vain, last = [], 0, begins
        fresh = sum(number - began < rules.versions for *_, began in training)
        while training:
            full = len(buffer) >= min(rules.buffer, fresh)
            if full and fresh and training[0][0] > last:
                break
            last, u, began = heapq.heappop(training)
            if number - began < rules.versions:
                buffer.append((u, began))
            else:
                in_vain += 1
        now = last
        found.append((sorted(buffer), in_vain, now - begun))
    return found


BUFFERED = [
    {"cohort": 8, "buffer": 3},
    {"cohort": 8, "buffer": 1, "max_staleness": 3},
    {"buffer": 5, "dropout": 0.2},
    {"cohort": 4, "buffer": 4, "max_staleness": 0},
]


@pytest.mark.parametrize("own", BUFFERED, ids=str)
@DEVICES
def test_steps_of_a_buffer_are_those_of_an_event_loop(table, own, devices):
    simulation = of(table, devices=devices, **own)
    federation, state = simulation.federation, simulation.initial_state(1)
    step = jax.jit(lambda state: buffered.arrivals(federation, state, simulation.rates))
    for number, expected in enumerate(steps_by_events(simulation, state, 20)):
        age, spent = step(state)
        who = np.flatnonzero(np.asarray(age) >= 0).tolist()
        found = [(u, number - int(age[u])) for u in who]
        assert (found, int(spent.cut_off), int(spent.elapsed)) == expected
        state = state._replace(round=state.round + 1, time=spent.time, flight=spent.flight)


@SOLVERS
def test_a_buffered_step_is_the_weighted_sum_of_old_and_new(table, solver, devices):
    simulation = of(
        table, cohort=8, buffer=2, staleness_power=0.7, devices=devices, client_solver=solver
    )
    features, federation = simulation.features, simulation.federation
    state = simulation.initial_state(1)
    server, private, servers, expected = state.server, state.private, [], []
    events = steps_by_events(simulation, state, 9)
    assert max(n - began for n, (buffer, *_) in enumerate(events) for _, began in buffer) >= 2
    for number, (buffer, *_) in enumerate(events):
        servers.append(server)
        found = None
        for user, began in buffer:  # one after the other
            before = state._replace(round=jnp.int32(began), server=servers[began])
            sent = sent_by(federation, before, features, simulation.rates)
            private, total = trained(simulation, state, sent, private, [user])
            own = aggregate.gathered(federation.server, servers[began], features, total)
            share = (1 + number - began) ** -0.7
            weighed = jax.tree.map(functools.partial(jnp.multiply, share), own.gradient)
            own = own._replace(gradient=weighed)
            found = own if found is None else jax.tree.map(jnp.add, found, own)
        server = stepped(simulation, server, found, number)
        expected.append((server.params, private))
    trainer = OnDevice(simulation, [1])
    trainer.compile()
    for params, private in expected:
        with jax.transfer_guard("disallow"):
            trainer.round()
        close(trainer.states.server.params, params, 1e-5)
        close(trainer.states.private, private, 1e-5)


WHOLE = [
    {"cohort": 6, "deadline": 60.0, "stragglers": "late"},
    pytest.param({"cohort": 6, "over_selection": 0.5}, marks=SLOW),
    {"cohort": 8, "buffer": 3},
]


@pytest.mark.parametrize("own", WHOLE, ids=str)
def test_a_killed_run_ends_as_if_it_had_not_been(table, own, tmp_path):
    config = worlds.config(
        devices_profile=str(table), client_solver="exact", warm_start="spectral", als_passes=1,
        rounds=12, **own,
    )  # fmt: skip
    data = worlds.dataset()
    whole = fedvlr_jax.train(config, tmp_path / "whole", dataset=data)
    for left in (3, 4):
        with pytest.raises(Stopped):
            fedvlr_jax.train(config, tmp_path / "parts", worlds.StopAfter(left), data)
    parts = fedvlr_jax.train(config, tmp_path / "parts", dataset=data)
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (run.out / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert lines[0][-1]["simulated_seconds"] > 0
    for name in ("participation", "communication", "test", "simulated_seconds"):
        assert whole.summary[name] == parts.summary[name]


@pytest.mark.parametrize("warm_start", ["none", pytest.param("spectral", marks=SLOW)])
def test_rounds_on_the_host_are_those_on_the_devices(table, warm_start, tmp_path):
    simulation = of(
        table, cohort=6, deadline=60.0, stragglers="late", devices=2, client_solver="exact",
        warm_start=warm_start, als_passes=int(warm_start == "spectral"),
    )  # fmt: skip
    here, there = OnDevice(simulation, [3]), OffDevice(simulation, 3, 4, tmp_path, 1, rounds=12)
    here.compile()
    there.compile()
    for _ in range(12):
        with jax.transfer_guard("disallow"):
            outcomes = here.round(), there.round()
        close(*outcomes)
        close(here.states.server.params, there.state.server.params, 1e-5)
    close(here.states.time, there.state.time, 0)


def test_runs_together_are_runs_alone(table):
    alone = []
    configs = [
        worlds.config(devices_profile=str(table), cohort=8, buffer=3, staleness_power=p, seed=seed)
        for p, seed in ((0.0, 1), (1.0, 2))
    ]
    data = worlds.dataset()
    for config in configs:
        trainer = OnDevice(build(config, data), [config.schedule.seed])
        trainer.compile()
        outcomes = [trainer.round() for _ in range(6)]
        alone.append((trainer.states, outcomes))
    both = build(configs[0], data, [(configs[1], data)])
    trainer = OnDevice(both, [1, 2])
    trainer.compile()
    for k in range(6):
        outcome = trainer.round()
        for run, (_, outcomes) in enumerate(alone):
            assert outcome.milliseconds[run] == outcomes[k].milliseconds[0]
    for run, (states, _) in enumerate(alone):
        close(trainer.runs[run].state.server.params, states.server.params, 1e-5)


def test_newcomers_join_a_run_whose_clients_take_time(table, tmp_path):
    data = worlds.dataset()
    config = worlds.config(devices_profile=str(table), cohort=8, buffer=3)
    run = fedvlr_jax.train(config, tmp_path / "run", dataset=data)
    found = newcomers.join(config, run.out, data, worlds.dataset(seed=1), 2)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"deadline": 3}, "--deadline=3.0: needs to know how long clients take"),
        ({"buffer": 3}, "--buffer=3: needs to know"),
        ({"over_selection": 0.5, "devices_profile": "phones"}, "--over_selection=0.5: everybody"),
        ({"stragglers": "late", "devices_profile": "phones"}, "--stragglers=late: the server wait"),
        (
            {"buffer": 3, "deadline": 5, "devices_profile": "phones"},
            "--deadline=5.0: there are no rounds to be late for",
        ),
        ({"buffer": 9, "cohort": 5, "devices_profile": "phones"}, "--buffer=9: expected at most"),
        ({"buffer": 14, "devices_profile": "phones"}, "--buffer=14: expected at most the 13"),
        ({"devices_profile": "nowhere.csv"}, "--devices_profile=nowhere.csv: is no file, expected"),
        (
            {"devices_profile": "phones", "noise_multiplier": 1, "clip_norm": 1},
            "--noise_multiplier=1.0: the privacy budget",
        ),
        (
            {"devices_profile": "phones", "buffer": 3, "private_state": "host"},
            "--buffer=3: clients begin and end at any time",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(own, said, tmp_path):
    with pytest.raises(UserError) as found:
        fedvlr_jax.train(worlds.config(**own), tmp_path / "run", dataset=worlds.dataset())
    assert str(found.value).startswith(said)
    assert "\n" not in str(found.value)


def test_another_table_of_the_same_name_is_another_run(table, tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text(table.read_text())
    config = worlds.config(devices_profile=str(path), rounds=2)
    fedvlr_jax.train(config, tmp_path / "run", dataset=worlds.dataset())
    path.write_text(table.read_text().replace("0.5\n", "0.25\n"))
    with pytest.raises(UserError, match="the devices' table behind it has changed"):
        fedvlr_jax.train(config, tmp_path / "run", dataset=worlds.dataset())


def test_nobody_waits_where_rules_are_none():
    simulation = worlds.simulation()
    assert simulation.federation.rules is None
    assert simulation.rates.times is None
    assert Rules(0, 0).buffer == 0
