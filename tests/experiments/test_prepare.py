"""The command line of experiments.prepare, and a real kill in the middle of encoding."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from experiments import prepare
from fedvlr_jax.prepare.options import leaves
from tests.data.raw import published
from tests.experiments import programs
from tests.prepare.test_pipeline import content

SHOP = ("--source=rendered", "--clients=40", "--items=30", "--clip=random:tiny")


def test_help_explains_every_flag(capsys):
    code, printed, _ = programs.in_process(prepare, capsys, "--help")
    assert code == 0
    for name in [*leaves(), "out"]:
        assert f"--{name}: " in printed


def test_a_shop_from_the_command_line(tmp_path):
    done = programs.run("experiments.prepare", *SHOP, f"--out={tmp_path / 'shop'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "no pretrained knowledge" in done.stdout
    assert "encoded 30 images" in done.stdout
    assert f"--data={tmp_path / 'shop'}" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--source: missing"),
        (("--source=amazon",), "--raw: missing"),
        (("--source=amazon", "--raw=/no/such"), "--raw=/no/such: no such folder"),
        (("--source=rendered", "--items=few"), "--items=few: expected a whole number"),
        (("--source=rendered", "--clip=/no/such"), "--clip=/no/such: no such folder"),
        (("--source=rendered", "--out=/proc/no"), "--out=/proc/no: cannot be written"),
        (("--source=rendered", "--colour=red"), "colour"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    elsewhere = any(argument.startswith("--out=") for argument in arguments)
    given = arguments if elsewhere else (f"--out={out}", *arguments)
    code, _, complaint = programs.in_process(prepare, capsys, *given)
    assert code == 2
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert words in complaint
    assert not out.exists()


def test_a_damaged_file_leaves_nothing_behind(tmp_path, capsys):
    published.amazon_2023(tmp_path)
    path = tmp_path / "All_Beauty.jsonl"
    path.write_text(path.read_text()[:-40])
    out = tmp_path / "out"
    code, _, complaint = programs.in_process(
        prepare,
        capsys,
        "--source=amazon",
        f"--raw={tmp_path}",
        "--clip=random:tiny",
        f"--out={out}",
    )
    assert code == 2
    assert f"{path}, line {len(published.EVENTS)}: not JSON" in complaint
    assert not out.exists()


def test_a_file_without_a_header_and_with_dirt_from_the_command_line(tmp_path, capsys):
    rows = [
        f"{user}\t{item}\t5\t{1_600_000_000 + item}\n" for user in range(4) for item in range(6)
    ]
    outs = []
    for name, lines in (("clean", rows), ("dirty", [*rows[:3], "NULL\t3\t5\t9\n", *rows[3:]])):
        path = tmp_path / f"{name}.data"
        path.write_text("".join(lines))
        outs.append(tmp_path / name)
        code, printed, complaint = programs.in_process(
            prepare,
            capsys,
            "--source=csv",
            f"--raw={path}",
            "--columns=user,item,rating,time",
            f"--out={outs[-1]}",
        )
        assert (code, complaint) == (0, "")
    note = f"{path}, line 4: user is 'NULL', a missing value; 1 of 25 rows is left out"
    assert note in printed
    assert note in (outs[1] / "dataset.json").read_text()
    for name in ("inter.csv", "users.csv", "items.csv"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    code, _, complaint = programs.in_process(
        prepare,
        capsys,
        "--source=csv",
        f"--raw={path}",
        *("--user_column=user", "--item_column=item", "--time_column=time"),
        f"--out={tmp_path / 'other'}",
    )
    assert code == 2
    assert "line 1: no column user, found 0, 0, 5, 1600000000, which looks like data" in complaint
    assert "--columns=user,item,time" in complaint


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_stopped(tmp_path):
    """SIGKILL while pictures are being encoded; the next run encodes the rest only."""
    raw, images = tmp_path / "raw", tmp_path / "images"
    raw.mkdir()
    images.mkdir()
    rng = np.random.default_rng(0)
    items = [f"p{k:04d}" for k in range(400)]
    for item in items:
        Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8)).save(images / f"{item}.jpg")
    lines = [f"{item},{user},{k}\n" for user in range(3) for k, item in enumerate(items)]
    (raw / "x_pair.csv").write_text("".join(lines))
    (raw / "x_item.csv").write_text("".join(f"{item},{item},{item}\n" for item in items))
    command = [
        *(sys.executable, "-m", "experiments.prepare", "--source=ninerec", "--clip=random:tiny"),
        *(f"--raw={raw}", f"--images={images}", "--batch=2"),
    ]
    settings = {"cwd": programs.ROOT, "env": programs.environment(), "text": True}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, f"--out={whole}"], check=True, capture_output=True, **settings)
    process = subprocess.Popen(
        [*command, f"--out={killed}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **settings,
    )
    partial = killed / ".tmp-image_features" / "rows.f16"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.stat().st_size > 30 * 256:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    done = subprocess.run(
        [*command, f"--out={killed}"], check=True, capture_output=True, **settings
    )
    assert "going on after image" in done.stdout
    assert "encoded 400 images" not in done.stdout
    ours, theirs = content(killed), content(whole)
    ours.pop("dataset.json"), theirs.pop("dataset.json")
    assert ours == theirs
