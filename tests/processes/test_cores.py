import os
import subprocess
import sys

import jax
import pytest

from fedvlr_jax.processes import cores
from tests.experiments import programs


@pytest.mark.parametrize(
    ("n_cores", "nproc", "expected"), [(2, "", "8"), (8, "", ""), (2, "9", "9")]
)
def test_more_devices_than_cores_get_a_thread_each(monkeypatch, n_cores, nproc, expected):
    assert jax.config.jax_num_cpu_devices == 8
    monkeypatch.setattr(cores, "_usable_cores", lambda: n_cores)
    monkeypatch.setenv("NPROC", nproc)
    if not nproc:
        monkeypatch.delenv("NPROC")
    cores.split_cpu()
    assert os.environ.get("NPROC", "") == expected


def test_devices_that_xla_is_told_of_are_found(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=12 --xla_b=2")
    assert cores._forced_devices() == 12
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    assert cores._forced_devices() == 0


def test_every_core_is_a_device_unless_jax_was_told():
    script = "import jax; from fedvlr_jax.processes import cores; cores.split_cpu(); "
    script += "print(jax.device_count())"
    for told, expected in ({}, len(os.sched_getaffinity(0))), ({"JAX_NUM_CPU_DEVICES": "3"}, 3):
        kept = {k: v for k, v in programs.environment().items() if k != "JAX_NUM_CPU_DEVICES"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=kept | told,
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == expected
