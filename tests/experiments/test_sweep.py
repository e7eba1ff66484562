import sys

import matplotlib.image
import pandas as pd
import pytest
from absl import flags

from experiments import cli, sweep
from tests.experiments import programs

SMALL = ("--items=40", "--dim=8", "--local_epochs=2", "--negatives=1", "--rounds=2")


@pytest.mark.slow
def test_a_sweep_writes_a_row_per_run_and_a_picture(tmp_path):
    out = tmp_path / "sweep"
    command = (
        *("experiments.sweep", "--clients=20,10", "--variants=id", "--seeds=2"),
        *(*SMALL, f"--out={out}"),
    )
    done = programs.run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    table = pd.read_csv(out / "results.csv")
    assert table[["clients", "variant", "seed"]].to_numpy().tolist() == [
        [n, v, s] for n in (10, 20) for v in ("id",) for s in (0, 1)
    ]
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
    # Again: every run is finished, and the table is the same.
    again = programs.run(*command)
    assert again.stdout.count("finished, nothing to do") == 4
    pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv"), table)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--clients=", "--clients="),
        ("--clients=10,x", "--clients=10,x: expected whole numbers"),
        ("--clients=10,10", "named twice"),
        ("--clients=0", "--clients=0"),
        ("--variants=all", "--variant=all"),
        ("--variants=id,id", "named twice"),
        ("--seeds=0", "--seeds=0"),
        ("--seeds=two", "--seeds=two: expected a whole number"),
        ("--variant=id", "variant"),
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


def test_help():
    done = programs.run("experiments.sweep", "--help")
    assert done.returncode == 0
    for name in ("clients", "variants", "rounds", "seeds", "out"):
        assert f"--{name}: " in done.stdout
