"""Figures of who came, what was sent and how fast it went, beside a plain count."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedvlr_jax
from fedvlr_jax.analysis.communication import Protocol, WarmProtocol
from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.errors import Stopped
from fedvlr_jax.simulation import accounting, keys, results
from fedvlr_jax.simulation.checkpoint import Done, Progress
from fedvlr_jax.simulation.federated_round import (
    drawn,
    federated_round,
    is_late,
    sent_by,
    train_cohort,
)
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.run import train_together
from tests import worlds

LENGTHS = np.array(worlds.LENGTHS)
PROTOCOL = Protocol(40, 3, 8, network=0, gamma=9, pool=0, draws=6, local=False)


def plain(rounds):
    """Figures of rounds, each (clients that trained, those of them that are late), by counting."""
    trained = [u for came, _ in rounds for u in came]
    heard, waiting = [], 0
    for came, late in rounds:
        heard.append(len(came) - len(late) + waiting)
        waiting = len(late)
    sent = sum(PROTOCOL.upload_bytes(LENGTHS[[u]])[0] for u in trained)
    participation = {
        "trained": len(trained),
        "late": sum(len(late) for _, late in rounds),
        "cut_off": 0,
        "uploads_counted": sum(heard),
        "rounds_without_clients": sum(not came for came, _ in rounds),
    }
    traffic = {
        "download_bytes_per_client_round": 40 * 3 * 8 * 4,
        "upload_bytes_per_client_round": sent / len(trained) if trained else None,
        "download_bytes": 40 * 3 * 8 * 4 * len(trained),
        "upload_bytes": sent,
    }
    return participation, traffic, heard


def done(came, late, seconds=0.1, others=0):
    by_length = np.bincount(LENGTHS[list(came)], minlength=21)
    return Done(seconds, 0.5, by_length, len(late), len(came) + others)


clients = st.sets(st.integers(0, 12))
rounds_of_a_run = st.lists(
    clients.flatmap(
        lambda c: st.tuples(st.just(c), st.sets(st.sampled_from(sorted(c)) if c else st.nothing()))
    ),
    min_size=1,
    max_size=9,
)


@given(rounds_of_a_run, st.integers(0, 9), st.integers(1, 12))
@settings(max_examples=200)
def test_figures_are_those_of_a_plain_count_however_a_run_is_parted(rounds, parted, cohort):
    progress = Progress().after([done(*one) for one in rounds[:parted]])
    kept = json.loads(json.dumps(dataclasses.asdict(progress)))  # a checkpoint
    progress = Progress(**kept).after([done(*one) for one in rounds[parted:]])
    participation, traffic, heard = plain(rounds)
    found = accounting.participation(cohort, progress)
    assert found == {"asked": cohort * len(rounds)} | participation
    assert accounting.traffic(PROTOCOL, progress) == pytest.approx(traffic)
    assert progress.uploads == heard[-1]
    speed = accounting.speed(progress)["client_rounds_per_second"]
    if len(rounds) == 1:
        assert speed is None
    else:
        assert speed == pytest.approx(np.mean([len(came) for came, _ in rounds[1:]]) / 0.1)


@given(st.lists(st.floats(0.09, 0.11), min_size=4, max_size=20), st.floats(1, 1e5), st.data())
def test_a_pause_is_not_slowness(seconds, pause, data):
    at = data.draw(st.integers(0, len(seconds) - 1))

    def speed(seconds):
        return accounting.speed(Progress().after([done(range(5), (), s, 5) for s in seconds]))

    paused = [s + pause * (k == at) for k, s in enumerate(seconds)]
    for found in speed(seconds), speed(paused):
        assert 0.09 <= found["round_seconds_median"] <= 0.11
        assert 10 / 0.11 <= found["client_rounds_per_second"] <= 10 / 0.09 + 1e-9


def test_who_is_cut_off_has_downloaded_what_the_round_sends():
    warm = {"warm": WarmProtocol(40, 16)}
    rounds = [
        dataclasses.replace(done({1, 2}, ()), kind="warm", cut_off=3, milliseconds=1500),
        dataclasses.replace(done({4}, ()), cut_off=2, milliseconds=250),
        dataclasses.replace(done({4, 5}, ()), milliseconds=250),
    ]
    progress = Progress().after(rounds[:1]).after(rounds[1:])
    found = accounting.participation(7, progress)
    assert (found["asked"], found["trained"], found["cut_off"]) == (10, 5, 5)
    assert progress.simulated_seconds == 2.0
    sent = accounting.traffic(PROTOCOL, progress, warm)
    down = 40 * 3 * 8 * 4
    assert sent["download_bytes"] == (2 + 3) * 40 * 16 * 4 + (1 + 2 + 2) * down
    alone = accounting.traffic(
        PROTOCOL, Progress().after([dataclasses.replace(one, cut_off=0) for one in rounds]), warm
    )
    assert sent["upload_bytes"] == alone["upload_bytes"]


def test_what_was_not_counted_is_not_told():
    before = Progress(round=2, round_seconds=[0.1, 0.1])  # of a version that did not count
    progress = before.after([done(range(5), ())])
    found = accounting.participation(13, progress)
    assert found.pop("asked") == 39
    assert set(found.values()) == {None}
    assert accounting.traffic(PROTOCOL, progress)["upload_bytes"] is None
    assert accounting.speed(progress)["client_rounds_per_second"] is None


STATIC = [
    {"late": late, "cohort": cohort, "buckets": buckets, "devices": devices}
    for late, cohort, buckets, devices in (
        (0.5, 9, 2, 2),
        (0.0, 0, 1, 1),
        (0.5, 0, 3, 8),
        (0.0, 5, 2, 2),
    )
]


@functools.cache
def programs(number):
    """A simulation, its round, and one client's training alone: loss, weight, private states."""
    simulation = worlds.simulation(dropout=0.5, server_optimizer="sgd", **STATIC[number])
    federation, features = simulation.federation, simulation.features

    @jax.jit
    def alone(state, client):
        sent = sent_by(federation, state, features, simulation.rates)
        who = simulation.population.client == client
        _, totals, _ = train_cohort(
            federation,
            sent,
            Private(state.private),
            simulation.population,
            who,
            simulation.rates,
            state.key,
        )
        return totals.loss.sum(), totals.weight.sum()

    return simulation, jax.jit(functools.partial(federated_round, federation)), alone


@pytest.mark.parametrize(
    "number", [0] + [pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3)]
)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=4)
def test_a_round_counts_who_trained_and_means_their_losses(number, dropout, late, seed):
    simulation, step, alone = programs(number)
    rates = simulation.rates._replace(dropout=jnp.float32(dropout), late=jnp.float32(late))
    state, waiting = simulation.initial_state(seed), []
    for k in range(3):
        after, (loss, came, _) = step(state, simulation.population, simulation.features, rates)
        old, new = (np.asarray(s.private)[:13] for s in (state, after))
        trained = np.flatnonzero((old != new).any(axis=1))
        np.testing.assert_array_equal(came.by_length, np.bincount(LENGTHS[trained], minlength=21))
        drawn = np.asarray(is_late(state.key, jnp.int32(k), jnp.arange(13), rates.late))
        tardy = [u for u in trained if drawn[u] and STATIC[number]["late"]]
        assert came.late == len(tardy)
        own = {u: np.array(alone(state, u)) for u in trained}
        heard = waiting + [own[u] for u in trained if u not in tardy]
        waiting = [own[u] for u in tardy]
        if heard:
            total, weight = np.sum(heard, axis=0)
            assert float(loss) == pytest.approx(total / weight, rel=1e-4)
        else:
            assert float(loss) == 0
        state = after


@functools.partial(jax.jit, static_argnums=0)
def draw(federation, words, numbers, dropout, late):
    """Who comes in some rounds, and who of them is late."""
    everybody = jnp.arange(13)
    rounds = jax.vmap(lambda k: drawn(federation, words, k, dropout, federation.cohort))(numbers)
    came = jnp.logical_and(*rounds)
    return came, jax.vmap(lambda k: is_late(words, k, everybody, late))(numbers) & came


def drawn_rounds(config, rounds, simulation):
    """Who trained in each round of a run and who of them was late, drawn once more."""
    words, part = keys.from_seed(config.schedule.seed), config.participation
    rates = jnp.float32(part.dropout), jnp.float32(part.late)
    drawn = draw(simulation.federation, words, jnp.arange(rounds), *rates)
    return [
        (np.flatnonzero(came).tolist(), np.flatnonzero(late).tolist())
        for came, late in zip(*map(np.asarray, drawn), strict=True)
    ]


def check(result, config):
    """The figures of a finished run are those of a plain count; what each evaluation says, too."""
    simulation, summary = worlds.build(config, worlds.dataset()), result.summary
    rounds = drawn_rounds(config, summary["rounds_done"], simulation)
    participation, traffic, heard = plain(rounds)
    asked = (config.method.cohort or 13) * len(rounds)
    assert summary["participation"] == {"asked": asked} | participation
    bytes_found = dict(summary["communication"])
    protocol = Protocol(**bytes_found.pop("protocol"))
    assert dataclasses.replace(protocol, gamma=9) == PROTOCOL
    assert bytes_found == pytest.approx(traffic)
    lines = [json.loads(x) for x in (result.out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["clients_trained"] == len(rounds[line["round"] - 1][0])
        assert line["uploads_counted"] == heard[line["round"] - 1]
        assert (line["train_loss"] is None) == (heard[line["round"] - 1] == 0)
    timing = summary["timing"]
    updates = np.mean([len(came) for came, _ in rounds[1:]]) / timing["round_seconds_median"]
    if timing["runs_together"] == 1:
        assert timing["client_rounds_per_second"] == pytest.approx(updates)
    numbers = row_numbers(simulation.federation.training.model)
    assert summary["memory"]["client_state_bytes"] <= 13 * 4 * numbers
    assert summary["best_is_last"] == (summary["best_round"] == summary["rounds_done"])


RUNS = {
    "nobody": {"dropout": 0.999999, "late": 0.5, "cohort": 9},
    "dropout, late, cohort": {"dropout": 0.4, "late": 0.5, "cohort": 9},
    "devices": {"dropout": 0.4, "late": 0.5, "cohort": 9, "buckets": 2, "devices": 3},
    "plain": {},
    "dropout": {"dropout": 0.5},
    "late": {"late": 0.5},
    "all late": {"late": 0.999999},
    "cohort": {"cohort": 5},
    "skew": {"cohort": 5, "availability_skew": 2.0},
    "buckets": {"dropout": 0.4, "buckets": 4, "chunk": 2, "devices": 8},
    "clipped": {"dropout": 0.4, "clip_norm": 0.1, "noise_multiplier": 0.5},
    "clipped, late": {"dropout": 0.4, "late": 0.3, "clip_norm": 0.1},
    "waves": {"dropout": 0.4, "late": 0.3, "cohort": 9, "private_state": "host", "wave": 4},
}  # fmt: skip
QUICK = ("nobody", "dropout, late, cohort")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RUNS]
)
def test_runs_tell_who_came(name, tmp_path):
    config = worlds.config(rounds=7, eval_every=3, seed=4, **RUNS[name])
    whole = fedvlr_jax.train(config, tmp_path / "whole", dataset=worlds.dataset())
    check(whole, config)
    for rounds in (2, 3):  # between evaluations, and again at one
        with pytest.raises(Stopped):
            fedvlr_jax.train(
                config, tmp_path / "parted", worlds.StopAfter(rounds), worlds.dataset()
            )
    parted = fedvlr_jax.train(config, tmp_path / "parted", dataset=worlds.dataset())
    check(parted, config)
    for part in ("participation", "communication", "best_is_last"):
        assert parted.summary[part] == whole.summary[part]


@pytest.mark.slow
def test_runs_together_count_their_own_and_share_the_speed(tmp_path):
    configs = [
        worlds.config(rounds=4, dropout=dropout, cohort=9, seed=seed, devices=2)
        for seed, dropout in enumerate((0.0, 0.5, 0.999999))
    ]
    outs = [tmp_path / str(k) for k in range(3)]
    data = [worlds.dataset()] * 3
    found = train_together(configs, outs, [worlds.StopAfter(99)] * 3, data)
    for result, config in zip(found, configs, strict=True):
        check(result, config)
    rounds = [drawn_rounds(c, 4, worlds.build(c, data[0])) for c in configs]
    came = sum(len(who) for run in rounds for who, _ in run[1:]) / 3
    for result in found:
        timing = result.summary["timing"]
        expected = came / timing["round_seconds_median"]
        assert timing["client_rounds_per_second"] == pytest.approx(expected)


def test_remarks_on_a_finished_run():
    summary = {"rounds_done": 3, "best_is_last": True, "participation": {"trained": 5}}
    assert results.remarks(summary) == [
        "the best round is the last one: a larger --rounds may do better"
    ]
    assert results.remarks(summary | {"best_is_last": False}) == []
    assert results.remarks({"rounds_done": 3}) == []  # of a version that did not count
    (found,) = results.remarks(summary | {"participation": {"trained": 0}})
    assert found.startswith("no client trained in any of the 3 rounds")
