"""Processes that share a machine's accelerators; none is needed to tell which each would have."""

import os
import subprocess
import sys

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import share
from fedvlr_jax.processes.share import Devices
from tests.experiments import programs

CUDA, HIP, TPU = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"
FOUR = Devices(CUDA, ("0", "1", "2", "3"))


@pytest.fixture
def machine(tmp_path):
    """Makes a machine with these device files; its root."""

    def make(*names):
        for name in names:
            file = tmp_path / "dev" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, "0 1"),
        ({CUDA: "1"}, "1"),
        ({CUDA: "2, 3"}, "2 3"),
        ({CUDA: "GPU-8932f937,GPU-a"}, "GPU-8932f937 GPU-a"),
        ({CUDA: "0,-1,1"}, "0"),
        ({CUDA: "-1"}, ""),
        ({CUDA: ""}, ""),
        ({"JAX_PLATFORMS": "cuda"}, "0 1"),
        ({"JAX_PLATFORMS": "gpu,cpu"}, "0 1"),
    ],
)
def test_what_a_user_shows_of_the_gpus_is_what_there_is(machine, environment, names):
    root = machine("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "vfio/0")
    assert share.visible({"cuda", "tpu"}, environment, root) == Devices(CUDA, tuple(names.split()))


@pytest.mark.parametrize(
    ("platforms", "files", "environment", "expected"),
    [
        ("tpu", "accel0 accel1", {}, Devices(TPU, ("0", "1"))),
        ("tpu", "vfio/0 vfio/1 vfio/vfio", {}, Devices(TPU, ("0", "1"))),
        ("tpu", "accel0 accel1", {TPU: "1"}, Devices(TPU, ("1",))),
        ("tpu", "accel0 nvidia0 nvidia1", {CUDA: "0,1"}, Devices(TPU, ("0",))),
        ("cuda tpu", "accel0 nvidia0", {"JAX_PLATFORMS": "tpu"}, Devices(TPU, ("0",))),
        ("cuda tpu", "accel0 nvidia0", {"JAX_PLATFORMS": "cpu"}, None),
        ("rocm", "", {HIP: "0,1"}, Devices(HIP, ("0", "1"))),
        ("cuda", "", {}, None),
        # JAX would run on the CPU.
        ("", "nvidia0 nvidia1", {}, None),
        ("", "nvidia0 nvidia1", {CUDA: "0,1"}, None),
    ],
)
def test_what_jax_can_start_is_found(machine, platforms, files, environment, expected):
    root = machine(*files.split())
    assert share.visible(set(platforms.split()), environment, root) == expected


@pytest.mark.parametrize(
    ("devices", "each", "shown"),
    [
        (FOUR, 1, ["0", "1", "2", "3"]),
        (FOUR, 2, ["0,1", "2,3"]),
        (FOUR, 3, ["0,1,2"]),
        (Devices(CUDA, ("5", "7")), 1, ["5", "7"]),
        (Devices(HIP, ("0", "1")), 1, ["0", "1"]),
        (Devices(TPU, ("0", "1")), 1, ["0", "1"]),
    ],
)
def test_the_nth_process_takes_the_nth_devices(devices, each, shown):
    found = [share.of_process(devices, each, number) for number in range(len(shown))]
    assert [variables[devices.variable] for variables in found] == shown
    with pytest.raises(UserError, match=f"--devices={each}: .*expected at most {len(shown)} proc"):
        share.of_process(devices, each, len(shown))


@pytest.mark.parametrize(
    ("devices", "each"),
    [
        *((None, 1), (FOUR, 0), (FOUR, 4), (FOUR, 5), (Devices(CUDA, ()), 1)),
        *((Devices(CUDA, ("3",)), 1), (Devices(TPU, ("0", "1", "2", "3")), 2)),
    ],
)
def test_where_there_is_nothing_to_choose_all_is_left(devices, each, tmp_path):
    assert share.of_process(devices, each, 7) == {}
    assert share.take(each, devices, tmp_path / "locks") == {}
    assert not (tmp_path / "locks").exists()


def test_a_process_with_one_chip_of_a_tpu_says_so_to_libtpu():
    assert share.of_process(Devices(TPU, ("0", "1")), 1, 1) == {
        TPU: "1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


# Takes a device, says which, and keeps it until its input ends.
PROCESS = """
import os, sys
from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import share
try:
    share.take(1, share.visible({"cuda"}))
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
except UserError as error:
    print(error, flush=True)
sys.stdin.read()
"""


def test_processes_that_run_at_once_have_devices_of_their_own(tmp_path):
    environment = os.environ | {CUDA: "4,6", "TMPDIR": str(tmp_path), "JAX_PLATFORMS": ""}

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [sys.executable, "-c", programs.IN_PARTS + PROCESS], env=environment, **pipes
        )

    running = [start()]
    try:
        assert running[0].stdout.readline() == "4\n"
        running += [start(), start()]
        said = sorted(process.stdout.readline() for process in running[1:])
        assert said[0] == "6\n"
        assert "other processes have all 2 devices" in said[1]
        running[0].kill()  # in whatever way it ends
        running[0].wait()
        running.append(start())
        assert running[-1].stdout.readline() == "4\n"
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_a_process_takes_devices_once(monkeypatch, tmp_path):
    monkeypatch.setattr(share, "_taken", [])
    monkeypatch.setenv(CUDA, "0,1,2,3")
    assert share.take(2, FOUR, tmp_path) == {CUDA: "0,1"}
    assert os.environ[CUDA] == "0,1"
    assert share.take(1, FOUR, tmp_path) == {}
    # Another process wants one, and then two.
    held = share._taken
    monkeypatch.setattr(share, "_taken", [])
    assert share.take(1, FOUR, tmp_path) == {CUDA: "2"}
    held += share._taken
    monkeypatch.setattr(share, "_taken", [])
    with pytest.raises(UserError, match="other processes have all"):
        share.take(2, FOUR, tmp_path)
    for lock in held:
        lock.close()
    assert share.take(2, FOUR, tmp_path) == {CUDA: "0,1"}
    for lock in share._taken:
        lock.close()
