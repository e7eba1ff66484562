"""Tables, pictures and JSON of the mains; one small race for real."""

import json

import pytest

from benchmarks import accelerators, scaling, throughput
from tests.experiments import programs


@pytest.mark.slow
def test_a_small_race(tmp_path):
    done = programs.run(
        "benchmarks.throughput",
        *("--clients=5", "--contenders=fedvlr_jax,vmap", "--seconds=0.1", "--items=60"),
        *("--history_length=3", "--dim=8", f"--out={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "throughput.json").read_text())
    assert set(found["losses"]) == {"fedvlr_jax", "vmap"}
    assert [(p["contender"], p["clients"]) for p in found["points"]] == [
        ("fedvlr_jax", 5),
        ("vmap", 5),
    ]
    assert all(p["updates_per_second"] > 0 and p["peak_bytes"] > 0 for p in found["points"])
    assert "x slower" in (tmp_path / "throughput.txt").read_text()
    assert (tmp_path / "throughput.png").stat().st_size > 10_000


def point(contender, rate, **more):
    timed = {"clients_timed": 10, "round_seconds": [10 / rate], "compile_seconds": 1.0}
    return {"contender": contender, "clients": 10, "updates_per_second": rate, **timed} | {
        "peak_bytes": 10**9,
        **more,
    }


def test_failures_and_who_is_left_out_are_told(tmp_path):
    results = {
        "machine": throughput.machine.describe(),
        "points": [
            point("fedvlr_jax", 1000.0),
            point("vmap", 100.0),
            {"contender": "torch", "clients": 10, "failure": "took longer than 3 s"},
        ],
        "left_out": {"drjax": "drjax not installed"},
        "notes": {"vmap": "JAX"},
    }
    throughput.report.show(throughput.summary(results), tmp_path, "table.txt")
    text = (tmp_path / "table.txt").read_text()
    row = next(line for line in text.splitlines() if line.strip().startswith("vmap "))
    assert "10.0" in row, "ten times slower than this project"
    assert "torch, 10 clients: took longer than 3 s" in text
    assert "drjax: left out, drjax not installed" in text


def test_slopes_of_known_laws():
    sizes = [100, 1000, 10_000]
    assert scaling.slope(sizes, [3e-4 * n for n in sizes]) == pytest.approx(1)
    assert scaling.slope(sizes, [n**0.5 for n in sizes]) == pytest.approx(0.5)
    assert scaling.slope([100], [1.0]) is None


def test_scaling_is_reported(tmp_path):
    def measured(axis, size, seconds):
        return {
            "axis": axis,
            "size": size,
            "clients": size,
            "round_seconds": [seconds],
            "eval_seconds": seconds / 10,
            "peak_bytes": 10**9,
            "client_state_bytes": 10**8,
            "compile_seconds": 1.0,
        }

    points = [measured("clients", n, n * 1e-4) for n in (100, 1000, 10_000)]
    points += [measured("items", n, 0.5) for n in (1000, 10_000)]
    points += [{"axis": "items", "size": 10**5, "failure": "was killed"}]
    results = {"machine": scaling.machine.describe(), "points": points}
    scaling.report.show(scaling.summary(results), tmp_path, "scaling.txt")
    text = (tmp_path / "scaling.txt").read_text()
    assert "round time ~ clients^1.00, without the smallest ^1.00" in text
    assert "items 100,000: was killed" in text
    scaling.plot(points, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_bad_flags_are_refused_before_anything_runs(tmp_path, capsys):
    for module, flag, sentence in (
        (throughput, "--clients=0", "--clients=0: expected whole numbers"),
        (throughput, "--contenders=me", "--contenders=me: expected names from fedvlr_jax"),
        (throughput, "--history_length=0", "--history_length=0: expected at least 1"),
        (scaling, "--axes=x", "--axes=x: expected names from clients"),
        (scaling, "--views=99", "--views=99: expected at most 11"),
        (accelerators, "--chunk=0", "--chunk=0: expected whole numbers"),
        (accelerators, "--targets=x", "--targets=x: expected names like cpu:1"),
    ):
        code, _, complaint = programs.in_process(module, capsys, flag, f"--out={tmp_path / 'run'}")
        assert code == 2
        assert sentence in complaint
    assert not (tmp_path / "run").exists()
