"""Two processes with two devices each train what one device trains."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import fedvlr_jax
from fedvlr_jax import data as data_sets
from fedvlr_jax.simulation.checkpoint import Checkpoints
from fedvlr_jax.simulation.simulation import abstract, build
from tests.experiments import programs
from tests.processes.test_peers import free_port

# Clients that no number of devices divides; with plain SGD of rate 1 the server's parameters
# differ from the initial ones by the sum of the aggregated gradients.
SETTINGS = {
    "client_solver": "sgd",
    "clients": 21,
    "items": 40,
    "dim": 8,
    "local_epochs": 2,
    "negatives": 2,
    "cohort": 17,
    "server_optimizer": "sgd",
    "server_lr": 1.0,
    "client_lr": 0.5,
    "router_lr": 0.5,
    "buckets": 1,
    "eval_every": 1,
    "checkpoint_seconds": 0,
}


def start(out, rounds, host="127.0.0.1", folders=(programs.ROOT, programs.ROOT), **more):
    """The two processes, each with a current folder."""
    settings = SETTINGS | {"rounds": rounds, "out": out} | more
    flags = [f"--{name}={value}" for name, value in settings.items()]
    where = f"--coordinator={host}:{free_port()}"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.train", *flags, where),
                *("--num_processes=2", f"--process_id={index}"),
            ],
            cwd=folders[index],
            env=programs.environment(devices=2),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (1, 0)
    ][::-1]


def ended(processes):
    """(exit code, stdout, stderr) of each."""
    said = [process.communicate(timeout=180) for process in processes]
    return [(p.returncode, *words) for p, words in zip(processes, said, strict=True)]


def config(rounds):
    return fedvlr_jax.Config.of(**SETTINGS, rounds=rounds, devices=1)


def state(out, number):
    """Everything after a round, read by one process with one device."""
    made = config(number)
    simulation = build(made, data_sets.load(made))
    like = abstract(simulation.initial_state(0))
    found, _ = Checkpoints(out / "checkpoints").load(number, like)
    return jax.device_get(found)


def _numbers(part):
    """The leaves of nested dictionaries by name."""
    leaves = jax.tree_util.tree_leaves_with_path(part)
    return {jax.tree_util.keystr(path): value for path, value in leaves}


def assert_same(found, expected, last):
    for number in (last - 1, last):
        states = [state(out, number) for out in (found, expected)]
        for a, b in zip(*map(jax.tree.leaves, states), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    summaries = [json.loads((out / "summary.json").read_text()) for out in (found, expected)]
    assert [s["processes"] for s in summaries] == [2, 1]
    assert [s["devices"] for s in summaries] == [4, 1]
    for part in ("valid", "test", "popularity", "communication", "parameters"):
        found_part, expected_part = (_numbers(summary[part]) for summary in summaries)
        assert found_part == pytest.approx(expected_part)
    prints = [json.loads((out / "config.json").read_text()) for out in (found, expected)]
    assert prints[0]["data_fingerprint"] == prints[1]["data_fingerprint"]
    with (
        np.load(found / "rankings.npz") as a,
        np.load(expected / "rankings.npz") as b,
    ):
        np.testing.assert_array_equal(a["users"], b["users"])
        assert (a["topk"] == b["topk"]).mean() > 0.99


def wait_for(out, pattern):
    deadline = time.monotonic() + 120
    while not list(out.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(out.glob(pattern))


def last_round(out):
    return max(int(path.name) for path in out.glob("checkpoints/0*"))


def listening(process):
    """(address, port) of every socket at which a process waits for others."""
    open_files = Path(f"/proc/{process.pid}/fd").iterdir()
    own = {os.readlink(path) for path in open_files}
    found = set()
    for table, family in ("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6):
        for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, status, *_, inode = line.split()[:10]
            if status == "0A" and f"socket:[{inode}]" in own:
                address, port = local.split(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


def assert_strangers_change_nothing(first, second):
    """What listens is at the coordinator's host alone, and does not mind whoever comes."""
    assert {address for address, _ in listening(first)} == {"127.0.0.2"}
    assert {address for address, _ in listening(second)} == {"127.0.0.1"}
    for where in listening(first) | listening(second):
        for content in (b"GET / HTTP/1.1\r\n\r\n", b"", os.urandom(4096), bytes(8)):
            with socket.create_connection(where, timeout=5) as stranger:
                stranger.sendall(content)


@pytest.mark.slow
def test_two_processes_train_what_one_device_trains_though_one_is_killed(tmp_path):
    out = tmp_path / "two"
    first, second = start(out, rounds=10_000, host="127.0.0.2")
    try:
        wait_for(out, "checkpoints/0*3")
        if Path("/proc/net/tcp").exists():
            assert_strangers_change_nothing(first, second)
            assert first.poll() is second.poll() is None
            wait_for(out, f"checkpoints/*{last_round(out) + 2}")
        second.kill()
        killed = time.monotonic()
        code, said, complaint = ended([first])[0]
        assert time.monotonic() - killed < 60
    finally:
        first.kill()
        ended([second])
    assert code == 2
    assert re.fullmatch(
        "error: process 1 has died, so process 0 stops; start all processes again to go on from "
        "the last checkpoint",
        complaint.strip().splitlines()[-1],
    )
    assert "round    1" in said

    done = last_round(out)
    rounds = done + 2
    (code, said, _), (other_code, other, _) = ended(start(out, rounds))
    assert code == other_code == 0
    assert f"going on after round {done}" in said
    assert "best round" in said
    assert "round" not in other, "one process speaks"
    whole = tmp_path / "whole"
    fedvlr_jax.train(config(rounds), whole)
    assert_same(out, whole, rounds)

    # And one process alone can go on where two have stopped.
    for folder in (out, whole):
        fedvlr_jax.train(config(rounds + 1), folder)
    for a, b in zip(*(jax.tree.leaves(state(o, rounds + 1)) for o in (out, whole)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_process_0_that_is_killed_ends_the_other_with_a_sentence_alone(tmp_path):
    first, second = start(tmp_path / "run", rounds=10_000, host="localhost")
    try:
        wait_for(tmp_path / "run", "checkpoints/0*")
        first.kill()
        code, _, complaint = ended([second])[0]
    finally:
        second.kill()
        ended([first])
    assert code == 2
    assert complaint.splitlines()[-1].startswith("error: process 0 has died, so process 1 stops")
    assert "***" not in complaint
    assert "coordination" not in complaint.lower(), "JAX has not noticed"


@pytest.mark.slow
def test_processes_that_disagree_or_fail_end_with_a_sentence(tmp_path):
    for more, sentence in (
        ({"data": tmp_path, "clients": 5}, "--clients=5: only --data=synthetic takes it"),
        ({"private_state": "host"}, "--private_state=host: only one process at a time"),
    ):
        for code, _, complaint in ended(start(tmp_path / "run", 1, **more)):
            assert code == 2
            assert "Traceback" not in complaint
            assert sentence in complaint or "has stopped with an error" in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_import_the_same_plugins(tmp_path):
    folders, own = [tmp_path / "a", tmp_path / "b"], {"plugins": "cut", "aggregation": "cut"}
    for folder, factor in zip(folders, (0.5, 0.25), strict=True):
        folder.mkdir()
        (folder / "cut.py").write_text(
            "import fedvlr_jax, jax\n"
            f"cut = lambda gradient: jax.tree.map(lambda x: {factor} * x, gradient)\n"
            "fedvlr_jax.register_aggregation(fedvlr_jax.Aggregation('cut', cut))\n"
        )
    found = ended(start(tmp_path / "run", 1, folders=folders[:1] * 2, **own))
    assert [code for code, *_ in found] == [0, 0]
    flags = [f"--{name}={value}" for name, value in (SETTINGS | own).items()]
    alone = programs.run("experiments.train", *flags, "--rounds=1", "--out=../one", cwd=folders[0])
    assert alone.returncode == 0
    scores = [json.loads((tmp_path / o / "summary.json").read_text()) for o in ("run", "one")]
    assert _numbers(scores[0]["test"]) == pytest.approx(_numbers(scores[1]["test"]))

    found = ended(start(tmp_path / "other", 1, folders=folders, **own))
    assert [code for code, *_ in found] == [2, 2]
    assert "error: the processes have different plugins, expected the same in all of them" in (
        found[0][2] + found[1][2]
    )


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_round(tmp_path, signalled):
    out = tmp_path / "run"
    processes = start(out, rounds=100_000)
    for line in processes[0].stdout:
        if line.startswith("round"):
            break
    processes[signalled].send_signal(signal.SIGTERM)
    found = ended(processes)
    codes = [code for code, _, _ in found]
    assert codes[signalled] == 143
    assert codes[1 - signalled] == 130
    for _, _, complaint in found:
        assert "the same command goes on from what is on disk" in complaint
        assert "stopped with an error" not in complaint
    assert "stopping after this round" in found[signalled][2]
    saved = max(Checkpoints(out / "checkpoints").rounds())
    told = [int(line.split()[1]) for line in found[0][1].splitlines() if line[:5] == "round"]
    assert saved == max(told, default=saved)
