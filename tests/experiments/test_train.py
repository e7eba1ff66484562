"""The command line of experiments.train: outputs, exit codes, refusals, real kills."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import train
from fedvlr_jax.config import leaves
from tests.data.test_layout import write
from tests.experiments import programs
from tests.simulation.test_run import assert_same_outcome

SMALL = (
    *("--clients=30", "--items=40", "--dim=8", "--local_epochs=2", "--negatives=1"),
    "--client_solver=sgd",
    *("--devices=1", "--buckets=1"),
)
CONTRACT = [
    "data",
    "clients",
    "items",
    "backbone",
    "variant",
    "views",
    "rounds",
    "local_epochs",
    "negatives",
    "cohort",
    "server_lr",
    "network_lr",
    "client_lr",
    "router_lr",
    "patience",
    "eval_every",
    "eval_clients",
    "history_length",
    "seed",
    "out",
]


def test_help_explains_every_flag_and_exits_well():
    done = programs.run("experiments.train", "--help")
    assert done.returncode == 0
    for name in CONTRACT:
        assert f"--{name}: " in done.stdout
    assert set(CONTRACT) - {"out"} <= set(leaves())


# The program, and then what it has not waited for: only preparing needs it.
PROGRAM = """
import runpy
import sys
import experiments.search, experiments.sweep
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
for name in ("transformers", "huggingface_hub", "safetensors"):
    assert name not in sys.modules, name
"""


def test_a_run_from_the_command_line(tmp_path):
    out = tmp_path / "run"
    flags = (*SMALL, "--rounds=3", "--eval_every=2", f"--out={out}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags],
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("round")] == [
        "2",
        "3",
    ]
    assert "routers: image" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["data"]["clients"] == 30
    assert json.loads((out / "config.json").read_text())["clients"] == 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "again_by"),
    [(signal.SIGINT, 130, "Ctrl-C again"), (signal.SIGTERM, 143, "a second signal")],
)
def test_a_signal_finishes_the_round_and_saves(tmp_path, number, code, again_by):
    command = [
        *(sys.executable, "-m", "experiments.train", *SMALL, "--rounds=1000", "--eval_every=1"),
        f"--out={tmp_path / 'run'}",
    ]
    options = {"cwd": programs.ROOT, "env": programs.environment(), "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    for line in process.stdout:
        if line.startswith("round"):
            break
    process.send_signal(number)
    said, complaint = process.communicate(timeout=300)
    assert process.returncode == code
    assert f"stopping after this round; {again_by} stops at once" in complaint
    assert "the same command goes on" in complaint
    assert "Traceback" not in complaint
    rounds = [line.split()[1] for line in (line + said).splitlines() if line[:5] == "round"]
    again = subprocess.run(command, capture_output=True, timeout=300, **options)
    assert again.returncode == 0, again.stderr
    assert f"going on after round {rounds[-1]}" in again.stdout
    told = [line.split()[1] for line in again.stdout.splitlines() if line[:5] == "round"]
    assert told[0] == str(int(rounds[-1]) + 1)


def test_quiet_prints_the_result_only(tmp_path, capsys):
    code, printed, complaint = programs.in_process(
        train, capsys, *SMALL, "--rounds=2", "--variant=id", "--quiet", f"--out={tmp_path / 'run'}"
    )
    assert code == 0
    assert complaint == ""
    assert printed.startswith("best round ")
    assert (tmp_path / "run" / "events").is_dir()


BAD_FLAGS = [
    ("--clients=0", "--clients=0"),
    ("--clients=ten", "--clients=ten: expected a whole number"),
    ("--server_lr=fast", "--server_lr=fast: expected a finite number of at least 0"),
    ("--rounds=1.5", "--rounds=1.5: expected a whole number"),
    ("--rounds=-1", "--rounds=-1"),
    ("--colour=red", "colour"),
    ("rounds", "rounds: unexpected argument"),
    ("--variant=MLP", "fedvlr, mlp, vbpr, id"),
    ("--backbone=svd", "fedavg"),
    ("--views=sum,all", "--views=all"),
    ("--client_optimizer=newton", "sgd, adam"),
    ("--cohort=5000", "1000 clients"),
    ("--data=/nowhere/at/all", "/nowhere/at/all: no such folder"),
    ("--devices=99", "--devices=99"),
    ("--out=/proc/no", "--out=/proc/no: cannot be written"),
]


@pytest.mark.parametrize(("flag", "words"), BAD_FLAGS)
def test_mistakes_end_in_one_sentence_and_code_two(tmp_path, capsys, flag, words):
    out = tmp_path / "run"
    arguments = [flag] if flag.startswith("--out") else [flag, f"--out={out}"]
    code, printed, complaint = programs.in_process(train, capsys, *arguments)
    assert code == 2
    assert printed == ""
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert words in complaint
    assert not out.exists()


def test_bad_data_leaves_nothing_behind(tmp_path, capsys):
    folder = write(tmp_path / "shop")
    np.save(folder / "image_features.npy", np.full((5, 6), np.nan))
    out = tmp_path / "run"
    code, said, complaint = programs.in_process(train, capsys, f"--data={folder}", f"--out={out}")
    assert code == 2
    assert said == ""
    assert complaint.count("\n") == 1
    assert "image_features.npy: row 0 holds NaN" in complaint
    assert not out.exists()


def test_divergence_ends_with_code_two(tmp_path, capsys):
    flags_ = (*SMALL, "--client_lr=3e38", "--rounds=2", f"--out={tmp_path / 'run'}")
    code, _, complaint = programs.in_process(train, capsys, *flags_)
    assert code == 2
    assert complaint.startswith("error: round 1")


@pytest.mark.slow
def test_killed_processes_end_like_one_that_was_not(tmp_path):
    command = [
        *(sys.executable, "-m", "experiments.train", *SMALL),
        *("--rounds=80", "--eval_every=2", "--cohort=20", "--variant=id"),
        "--checkpoint_seconds=0",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {"cwd": programs.ROOT, "env": programs.environment(), "stdout": subprocess.DEVNULL}
    subprocess.run([*command, f"--out={whole}"], check=True, **settings)

    def newest():
        return max((int(p.name) for p in killed.glob("checkpoints/0*")), default=0)

    rng = random.Random(0)
    kills = 0
    for _ in range(3):
        before = newest()
        process = subprocess.Popen([*command, f"--out={killed}"], **settings)
        deadline = time.monotonic() + 120
        while process.poll() is None and newest() == before and time.monotonic() < deadline:
            time.sleep(0.002)
        # At some moment of what follows: training, evaluating, or in the middle of a save.
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    subprocess.run([*command, f"--out={killed}"], check=True, **settings)
    assert_same_outcome(killed, whole)
