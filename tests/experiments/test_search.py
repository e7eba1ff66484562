import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import matplotlib.image
import pandas as pd
import pytest

from experiments import search, sweep
from fedvlr_jax.config import leaves
from fedvlr_jax.report.search_page import MEASURED
from fedvlr_jax.runs.space import Choice, Search
from fedvlr_jax.runs.trials import RUNNING, Outcome, Trial
from tests.experiments import programs

SMALL = (
    "--client_solver=sgd",
    *(
        "--devices=1",
        "--clients=30",
        "--items=20",
        "--local_epochs=2",
        "--negatives=1",
        "--buckets=1",
    ),
    *("--rounds=3", "--eval_every=1", "--prune_from=0"),
)
SEARCHED = ("--search=server_lr=log:1e-4:1e-1", "--search=client_lr=log:1e-2:1e-1")


def table_of(out):
    """trials.csv without what another day would fill differently."""
    return pd.read_csv(out / "trials.csv", dtype=str).drop(columns=MEASURED)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of which some trials are pruned and some diverge, and what it printed."""
    out = tmp_path_factory.mktemp("searched")
    done = programs.run(
        *("experiments.search", *SEARCHED, "--search=server_optimizer=sgd,adam", *SMALL),
        *("--dim=4", "--trials=9", f"--out={out}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out, done.stdout


@pytest.mark.slow
def test_a_search_writes_a_table_a_picture_and_the_best_settings(searched):
    out, said = searched
    table = pd.read_csv(out / "trials.csv")
    assert table["number"].tolist() == list(range(9))
    assert set(table["state"]) >= {"complete", "pruned"}
    complete = table[table["state"] == "complete"]
    assert complete["value"].between(0, 100).all()
    assert matplotlib.image.imread(out / "search.png").shape[0] > 500
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The best by validation</h2>" in page
    assert page.count('class="plot"') == 3 + 1
    best = complete.loc[complete["value"].idxmax()]
    # Test metrics of the best trial alone, and nowhere else.
    assert said.count("test of trial") == 1
    assert f"test of trial {best['number']}, warm clients, in percent: hr@10 " in said
    assert "test" not in (out / "trials.csv").read_text()
    command = next(line for line in said.splitlines() if line.startswith("python -m"))
    assert f"--server_lr={best['server_lr']}" in shlex.split(command)


def test_nothing_is_drawn_before_a_trial_has_ended(tmp_path):
    running = Trial(0, {"dim": 8}, Outcome(RUNNING))
    searched = Search({}, {"dim": Choice((8, 16))}, (0,))
    planner = SimpleNamespace(search=searched, trials=lambda _: [running])
    search._Report(planner, 3, tmp_path).renew({})
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


@pytest.mark.slow
def test_what_is_pruned_leaves_its_run_in_order(searched, tmp_path):
    out, _ = searched
    table = pd.read_csv(out / "trials.csv")
    pruned = table[table["state"] == "pruned"].iloc[0]
    assert "below the median" in pruned["reason"]
    (folder,) = (out / "runs").glob(
        f"server_lr={pruned['server_lr']:g},client_lr={pruned['client_lr']:g},*,seed=0"
    )
    assert not (folder / "summary.json").exists()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert 1 <= len(lines) < 3
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # A single run takes it up, to the end; a copy, since a search would count it as complete.
    folder = shutil.copytree(folder, tmp_path / "run", symlinks=True)
    settings = [f"--{name}={pruned[name]}" for name in ("server_lr", "client_lr")]
    settings.append(f"--server_optimizer={pruned['server_optimizer']}")
    done = programs.run("experiments.train", *SMALL[:-1], *settings, "--dim=4", f"--out={folder}")
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.json").exists()


@pytest.mark.slow
def test_a_sweep_takes_the_best_settings(searched, capsys):
    out, _ = searched
    code, said, _ = programs.in_process(
        sweep, capsys, f"--config={out / 'best.yaml'}", "--dry_run", "--seeds=2"
    )
    assert code == 0
    assert said.splitlines()[:3] == [
        *("seed=0", "seed=1"),
        "2 runs; nothing is trained, as --dry_run says",
    ]


@pytest.mark.slow
def test_a_finished_search_does_nothing_again(searched, capsys):
    out, said = searched
    before = table_of(out)
    code, again, _ = programs.in_process(
        search,
        capsys,
        *(*SEARCHED, "--search=server_optimizer=sgd,adam", *SMALL),
        *("--dim=4", "--trials=9", f"--out={out}"),
    )
    assert code == 0
    assert said.endswith(again)
    pd.testing.assert_frame_equal(table_of(out), before)


def test_a_run_that_diverges_is_recorded_and_the_search_goes_on(tmp_path, capsys):
    code, said, _ = programs.in_process(
        search,
        capsys,
        *("--search=server_lr=0.01,1e38", *SMALL, "--dim=4", "--trials=3", f"--out={tmp_path}"),
    )
    assert code == 0
    table = pd.read_csv(tmp_path / "trials.csv").set_index("server_lr")
    assert set(table["state"]) == {"complete", "failed"}
    assert (table.loc[0.01, "state"] == "complete").all()
    assert table.loc[[1e38], "reason"].str.contains("not finite, expected smaller learning").all()
    assert "trial 2 failed: round " in said


def test_where_nothing_is_complete_it_says_why(tmp_path, capsys):
    code, _, complaint = programs.in_process(
        search,
        capsys,
        *("--search=server_lr=1e38,2e38", *SMALL, "--dim=4", "--trials=1", f"--out={tmp_path}"),
    )
    assert code == 2
    assert complaint.count("\n") == 1
    assert "no trial is complete, the last one because of: round " in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--client_solver=sgd"], "nothing is searched, expected a setting and its values"),
        (["--search=server_lr"], "has no values, expected --search=server_lr=0.01,0.1"),
        (["--search=colour=red"], "unknown setting colour"),
        (["--search=server_lr=log:1:0.1"], "goes backwards, expected --search=server_lr=log:0.1:1"),
        (["--search=server_lr=log:0:0.1"], "above 0 on a log scale"),
        (["--search=dim="], "has no values"),
        (["--search=dim=8,16", "--search=dim=lin:8:16"], "dim is searched twice"),
        (["--search=dim=8,16", "--dim=8"], "--dim=8: dim is searched as well"),
        (["--search=variant=id,all"], "--variant=all: expected one of"),
        (["--search=seed=1,2", "--seeds=2"], "--seeds=2: seeds are given as well"),
        (["--search=dim=8,16", "--seed=1", "--seeds=2"], "--seeds=2: seeds are given as well"),
        (["--search=dim=8,16", "--seeds=0"], "--seeds=0: expected a whole number"),
        (["--search=dim=8,16", "--trials=0"], "trials"),
        (["--search=dim=8,16", "--data=nowhere"], "--data=nowhere: no such folder"),
        (["--search=dim=8,16", "--rounds=0"], "--rounds=0: expected a whole number"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(tmp_path, capsys, arguments, words):
    out = tmp_path / "search"
    code, _, complaint = programs.in_process(search, capsys, *arguments, f"--out={out}")
    assert code == 2
    assert complaint.count("\n") == 1
    assert words in complaint
    assert not out.exists()


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_the_same(tmp_path):
    command = (*SEARCHED, *SMALL, "--dim=4", "--trials=12")
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    done = programs.run("experiments.search", *command, f"--out={calm}")
    assert done.returncode == 0, done.stderr
    kills = 0
    for number in (1, 5, 7, 11):  # in a run of the trial of this number
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.search", *command, f"--out={wild}"],
            cwd=programs.ROOT,
            env=programs.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in process.stdout:
            if line.startswith(f"trial {number}: round"):
                time.sleep(0.02 * number)
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
        process.stdout.close()
        process.wait()
    assert kills >= 3
    again = programs.run("experiments.search", *command, f"--out={wild}")
    assert again.returncode == 0, again.stderr
    pd.testing.assert_frame_equal(table_of(wild), table_of(calm))


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path):
    command = ("experiments.search", *SEARCHED, *SMALL, "--dim=4", "--trials=8")
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: programs.run(*command, f"--out={tmp_path}"), range(2)))
    assert [done.stderr for done in both] == ["", ""]
    assert [done.returncode for done in both] == [0, 0]
    begun = [
        [line.split()[1] for line in done.stdout.splitlines() if " of 8: server_lr" in line]
        for done in both
    ]
    assert all(begun)
    assert sorted(begun[0] + begun[1]) == [str(number) for number in range(8)]
    assert len(table_of(tmp_path)) == 8


def test_help_explains_every_flag(capsys):
    code, said, _ = programs.in_process(search, capsys, "--help")
    assert code == 0
    for name in ("search", "trials", "seeds", "search_seed", "prune_from", "out", *leaves()):
        assert f"--{name}: " in said
