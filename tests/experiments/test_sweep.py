import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import pandas as pd
import pytest
from absl import flags

from experiments import cli, sweep
from fedvlr_jax.report.sweep_results import MEASURED
from fedvlr_jax.runs import estimate
from tests.experiments import programs
from tests.report import browser

SMALL = (
    "--client_solver=sgd",
    "--items=40",
    "--dim=8",
    "--local_epochs=2",
    "--negatives=1",
    "--rounds=2",
)


@pytest.mark.slow
def test_a_sweep_writes_a_row_per_run_and_a_picture(tmp_path):
    out = tmp_path / "sweep"
    command = (
        *("experiments.sweep", "--clients=10,20", "--sweep=variant=id,mlp", "--seeds=2"),
        *(*SMALL, "--baseline=variant=id", f"--out={out}"),
    )
    done = programs.run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = pd.read_csv(out / "baseline.csv")
    assert found[["clients", "variant", "runs"]].to_numpy().tolist() == [
        *([10, "mlp", 2], [20, "mlp", 2])
    ]
    assert "mlp - id at clients 20: " in done.stdout
    assert "scaling.png, baseline.csv, runs/" in done.stdout
    table = pd.read_csv(out / "results.csv")
    assert table[["clients", "variant", "seed"]].to_numpy().tolist() == [
        [n, v, s] for n in (10, 20) for v in ("id", "mlp") for s in (0, 1)
    ]
    assert set(table["status"]) == {"finished"}
    for column in (
        "test/warm/ndcg@50",
        "valid/hr@10",
        "popularity/test/warm/ndcg@50",
        "timing/client_rounds_per_second",
        "memory/peak_rss_bytes",
        "communication/upload_bytes_per_client_round",
        "server_lr",
        "rounds",
    ):
        assert table[column].notna().all(), column
    assert matplotlib.image.imread(out / "scaling.png").shape[0] > 500
    assert "updates/s" in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in (
        "Results",
        "Compared with variant=id",
        "Over clients",
        "Learning curves",
        "What clients rely on",
        "Every run",
    ):
        assert f"{title}</h2>" in page, title
    assert "precision of products" in page
    text, console = browser.opened(out / "report.html", tmp_path / "browser")
    assert console == []
    # Differences; time, throughput, memory, accuracy; two kinds of curves; reliance.
    assert text.count('class="plot js-plotly-plot"') == 8
    assert text.count('class="main-svg" xmlns') >= 8
    assert 'class="plot"' not in text, "a chart is not drawn"
    assert list((out / "runs").glob("*/events/events.out.tfevents.*"))
    # Again: nothing is done, and the table is the same.
    again = programs.run(*command)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stdout
    pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv"), table)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--clients=", "--sweep=clients=: has no values, expected --sweep=clients=100,1000"),
        ("--clients=10,x", "--sweep=clients=10,x: expected whole numbers"),
        ("--clients=10,10", "named twice"),
        ("--clients=0", "--clients=0"),
        ("--sweep=variant=all", "--variant=all: expected one of"),
        ("--sweep=colour=red", "unknown setting colour"),
        ("--sweep=server_lr=log:1:0.1:3", "goes backwards, expected --sweep=server_lr=log:0.1:1:3"),
        ("--seeds=0", "--seeds=0"),
        ("--seeds=two", "--seeds=two: expected a whole number"),
        ("--variants=id", "variants"),
        ("--config=none.yaml", "--config=none.yaml: cannot be read"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_is_written(
    tmp_path, capsys, monkeypatch, flag, words
):
    out = tmp_path / "sweep"
    values = flags.FlagValues()
    sweep.define_flags(values)
    monkeypatch.setattr(sys, "argv", ["sweep", flag, f"--out={out}"])
    with pytest.raises(SystemExit) as stop:
        cli.run(sweep.main, values, sweep.USAGE)
    complaint = capsys.readouterr().err
    assert stop.value.code == 2
    assert complaint.count("\n") == 1
    assert words in complaint
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clients=10", "--sweep=clients=20"], "clients is swept twice"),
        (["--sweep=seed=1,2", "--seeds=3"], "--seeds=3: seeds are given as well"),
        (["--rounds=3", "--sweep=rounds=3,4"], "--rounds=3: is swept as well"),
        (["--rounds=3", "--rounds=4"], "--rounds=4: --rounds is given twice"),
        (["--clients=10", "--data=data/KU"], "brings its own clients"),
        (["--baseline=mlp"], "--baseline=mlp: expected a setting and one of its values"),
        (["--baseline=variant=mlp"], "variant has one value in this sweep, expected a sweep of it"),
        (["--clients=10,20", "--baseline=clients=10"], "--baseline=clients=10: runs that differ"),
        (
            ["--sweep=variant=mlp,id", "--baseline=variant=fedvlr"],
            "--baseline=variant=fedvlr: no run has this value, expected one of mlp, id",
        ),
    ],
)
def test_contradictions_are_refused(tmp_path, capsys, arguments, words):
    code, _, complaint = programs.in_process(
        sweep, capsys, *arguments, f"--out={tmp_path / 'sweep'}"
    )
    assert code == 2
    assert words in complaint
    assert not (tmp_path / "sweep").exists()


@pytest.fixture
def untimed(monkeypatch):
    """Estimates that nobody waits for."""
    monkeypatch.setattr(
        estimate,
        "estimates",
        lambda runs, _: {name: estimate.Estimate(3700.0, 2_340_000_000, 40.0) for name in runs},
    )


def listed(said):
    """The runs at the beginning of what a dry run prints."""
    lines = said.splitlines()
    return lines[: next(k for k, line in enumerate(lines) if "nothing is trained" in line)]


@pytest.mark.usefixtures("untimed")
def test_a_dry_run_prints_the_runs_and_does_nothing(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "rounds: 7\nseeds: 2\nout: elsewhere\nsweep:\n  clients: [10, 20]\n  variant: [id, mlp]"
    )
    out = tmp_path / "sweep"
    code, said, _ = programs.in_process(
        sweep, capsys, f"--config={file}", "--variant=id", "--seeds=1", "--dry_run", f"--out={out}"
    )
    assert code == 0
    assert listed(said) == ["clients=10,seed=0", "clients=20,seed=0"]
    assert "2 runs" in said
    assert "clients=20,seed=0        2.3 1:01:40" in said
    assert "about 2:03:20" in said
    assert "1:20 of them to compile 2 programs; most likely between 1:22:13 and 3:05:00" in said
    assert not out.exists()


@pytest.mark.usefixtures("untimed")
def test_what_is_swept_by_default(capsys):
    _, said, _ = programs.in_process(sweep, capsys, "--dry_run")
    assert listed(said) == [f"clients={n},seed=0" for n in (100, 1000, 10000)]
    _, said, _ = programs.in_process(sweep, capsys, "--dry_run", "--sweep=dim=8,16", "--seed=4")
    assert listed(said) == [f"dim={n},seed=4" for n in (8, 16)]


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate.memory, "now_bytes", lambda: 500_000_000)  # the process itself
    out = tmp_path / "sweep"
    arguments = ("--clients=50,500000", *SMALL, "--variant=id", "--devices=1", "--buckets=1")
    arguments += ("--max_memory=0.6", f"--out={out}")
    code, _, complaint = programs.in_process(sweep, capsys, *arguments)
    assert code == 2
    assert "--max_memory=0.6: clients=500000,seed=0 takes about" in complaint
    assert complaint.count("\n") == 1
    assert not out.exists()


def table_of(out):
    """results.csv without what is measured on the machine."""
    table = pd.read_csv(out / "results.csv", dtype=str)
    return table[[c for c in table if not c.startswith(MEASURED)]]


KILLS = 20


@pytest.mark.slow
def test_the_second_start_of_a_sweep_hardly_compiles(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    took = []
    for name in ("first", "second"):
        flags = "--clients=10000", "--rounds=2", f"--out={tmp_path / name}"
        done = programs.run("experiments.sweep", *flags, devices=2)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        took += pd.read_csv(tmp_path / name / "results.csv")["timing/compile_seconds"].tolist()
    assert took[1] < took[0] / 4


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_the_same(tmp_path):
    command = [
        *("--clients=12,30", "--sweep=server_lr=log:1e-3:1e-1:3", "--sweep=variant=fedvlr,mlp"),
        *("--seeds=2", *SMALL[:-1], "--eval_every=1", "--rounds=20", "--together=3"),
    ]
    calm = tmp_path / "calm"
    done = programs.run("experiments.sweep", *command, f"--out={calm}")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(calm / "results.csv")) == 24
    rng = random.Random(0)
    kills, sweeps = 0, 0
    while kills < KILLS:
        wild, killed = tmp_path / f"wild{sweeps}", 0
        while kills < KILLS and _is_killed(command, wild, rng.uniform(3, 15)):
            kills, killed = kills + 1, killed + 1
        sweeps += 1
        assert killed > 2, "the sweep is too short to be killed"
        again = programs.run("experiments.sweep", *command, f"--out={wild}")
        assert again.returncode == 0, again.stderr
        pd.testing.assert_frame_equal(table_of(wild), table_of(calm))


def _is_killed(command, out, seconds):
    """Whether a sweep was killed after some seconds, and not done before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *command, f"--out={out}"],
        cwd=programs.ROOT,
        env=programs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.wait(seconds) == 0
        return False
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True


@pytest.mark.slow
def test_two_processes_share_a_sweep(tmp_path):
    command = (
        *("experiments.sweep", "--clients=12,20,30", "--sweep=variant=fedvlr,mlp", *SMALL),
        *("--together=1", f"--out={tmp_path}"),
    )
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: programs.run(*command), range(2)))
    assert [done.stderr for done in both] == ["", ""]
    assert [done.returncode for done in both] == [0, 0]
    started = [
        line.split()[1] for done in both for line in done.stdout.splitlines() if line[:1] == "["
    ]
    assert sorted(started) == sorted(set(started))
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(started) == 6


def test_help(capsys):
    code, said, _ = programs.in_process(sweep, capsys, "--help")
    assert code == 0
    for name in ("clients", "sweep", "rounds", "seeds", "config", "out"):
        assert f"--{name}: " in said
