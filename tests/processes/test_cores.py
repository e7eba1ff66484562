import os

import jax
import pytest

from fedvlr_jax.processes import cores


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
