"""Private states on the host: the same numbers as with all of them on the devices."""

import json

import jax
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax.client.flat import TILE
from fedvlr_jax.errors import UserError
from fedvlr_jax.simulation import checkpoint
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from tests import worlds
from tests.simulation.test_federated_round import close
from tests.simulation.test_run import KillAfter, Killed, assert_same_outcome, outcome


def off_device(simulation, folder, wave, memory=10**6):
    trainer = OffDevice(simulation, 3, wave, folder, memory, rounds=4)
    trainer.compile()
    return trainer


def private(trainer, client):
    """A client's flat state, None where it has never taken part."""
    trainer._keep()
    if not trainer._store.has(np.array([client]))[0]:
        return None
    into = np.empty((1, trainer._layout.numbers), np.float32)
    trainer._store.fetch(np.array([client]), into, np.arange(1))
    return into[0]


@pytest.mark.parametrize(
    ("devices", "cohort", "wave", "memory", "late"),
    [
        (3, 9, 6, 1, 0.4),
        pytest.param(1, 0, 4, 1, 0.0, marks=pytest.mark.slow),
        pytest.param(8, 9, 9, 10**6, 0.0, marks=pytest.mark.slow),
    ],
)
def test_rounds_equal_those_on_the_devices(devices, cohort, wave, memory, late, tmp_path):
    simulation = worlds.simulation(cohort=cohort, devices=devices, late=late, buckets=2)
    trainer = OnDevice(simulation, [3])
    trainer.compile()
    (here,) = trainer.runs
    there = off_device(simulation, tmp_path, wave, memory)
    took_part = set()
    for _ in range(4):
        before = jax.device_get(here.state.private)
        with jax.transfer_guard("disallow"):
            losses = trainer.round(), there.round()
        close(*losses)
        close(here.state.server, there.state.server)
        after = jax.device_get(here.state.private)
        took_part |= set(np.flatnonzero((before != after).any(axis=1)).tolist())
        for split in ("valid", "test"):
            np.testing.assert_array_equal(here.ranks(split), there.ranks(split))
    for client in range(simulation.n_clients):
        found = private(there, client)
        assert (found is not None) == (client in took_part)
        if found is not None:
            np.testing.assert_allclose(found, after[client], atol=1e-5)
    assert there.private_bytes == len(took_part) * 4 * there._layout.numbers
    for a, b in zip(here.rankings(), there.rankings(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    there.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return fedvlr_jax.train(config(), out, dataset=worlds.dataset())


def config(**settings):
    """Waves of two devices with two clients each: a cohort takes three of them."""
    standard = {"cohort": 9, "seed": 3, "rounds": 6, "devices": 2, "wave": 4}
    return worlds.config(**(standard | {"private_state": "host", "eval_clients": 7} | settings))


def test_a_run_ends_like_one_on_the_devices(whole, tmp_path):
    here = fedvlr_jax.train(config(private_state="device"), tmp_path, dataset=worlds.dataset())
    for a, b in zip(outcome(here.out)[1], outcome(whole.out)[1], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    x, y = outcome(here.out)[2], outcome(whole.out)[2]
    assert x.keys() == y.keys()
    np.testing.assert_array_equal(x.pop("per_user.npz/views"), y.pop("per_user.npz/views"))
    for key in x:
        np.testing.assert_allclose(x[key], y[key], atol=1e-4, err_msg=key)
    assert not (whole.out / "private").exists()
    numbers = whole.summary["parameters"]["private_per_client"]
    row = 4 * -(-numbers // TILE) * TILE
    assert whole.summary["memory"]["client_state_bytes"] % row == 0


@pytest.mark.parametrize("calls", [4, 9])
def test_a_killed_run_ends_like_one_that_was_not(whole, tmp_path, calls):
    with pytest.raises(Killed):
        fedvlr_jax.train(config(), tmp_path, KillAfter(calls), dataset=worlds.dataset())
    fedvlr_jax.train(config(), tmp_path, dataset=worlds.dataset())
    assert_same_outcome(whole.out, tmp_path)


def test_checkpoints_of_before_rows_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(Killed):
        fedvlr_jax.train(config(), tmp_path, KillAfter(10), dataset=worlds.dataset())
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    number = checkpoints.rounds()[-1]
    told = checkpoints.step(number) / "progress" / "metadata"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"layout": 0}))
    known = checkpoint._checksums(checkpoints.step(number))
    (checkpoints.step(number) / "checksums.json").write_text(json.dumps(known))
    with pytest.raises(UserError, match=f"00000{number}: made by an older version"):
        fedvlr_jax.train(config(), tmp_path, dataset=worlds.dataset())


def test_a_damaged_state_is_found(whole, tmp_path):
    with pytest.raises(Killed):
        fedvlr_jax.train(config(), tmp_path, KillAfter(10), dataset=worlds.dataset())
    newest = sorted(p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())[-1]
    first = min((newest / "private").glob("*.states.npy"))
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.unlink()  # the file may be linked from the checkpoint before
    first.write_bytes(content)
    reporter = KillAfter(10**6)
    fedvlr_jax.train(config(), tmp_path, reporter, dataset=worlds.dataset())
    assert any("damaged" in note for note in reporter.notes)
    assert_same_outcome(whole.out, tmp_path)
