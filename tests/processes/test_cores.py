import os
import subprocess
import sys

import jax
import pytest

from fedvlr_jax.errors import UserError
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


@pytest.mark.parametrize("given", ["", f"--{cores._ORDER}=true", "--xla_cpu_enable_fast_math=true"])
def test_collectives_come_in_one_order_unless_xla_was_told(given):
    script = "import jax; from fedvlr_jax.processes import cores; cores.split_cpu(); "
    script += "jax.devices(); import os; print(os.environ['XLA_FLAGS'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=programs.environment() | {"XLA_FLAGS": given},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [] if cores._ORDER in given else [f"--{cores._ORDER}=false"]
    assert done.stdout.split() == [*given.split(), *ours]


@pytest.mark.parametrize(
    ("told", "error", "reason"),
    [
        ("cuda", AssertionError(), ""),  # of JAX's own, where no plugin is installed
        ("tpu", RuntimeError("Unable to initialize\n backend 'tpu'"), " (Unable to initialize ba"),
        ("gpu", RuntimeError("Backend 'rocm' is not known"), " (Backend 'rocm' is not known"),
        ("nonsense", RuntimeError("not in the list"), " (not in the list"),
        (None, RuntimeError("the plugin has failed"), " (the plugin has failed"),
    ],
)
def test_a_platform_that_is_not_here_is_one_sentence(monkeypatch, told, error, reason):
    def fail():
        raise error

    started = []
    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(cores.backend, "clear_backends", lambda: started.append("anew"))
    monkeypatch.setattr(cores.backend, "backends", lambda: {"tpu": 1, "cpu": 2})
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", told)
    try:
        with pytest.raises(UserError) as found:
            cores.begin()
    finally:
        jax.config.update("jax_platforms", before)
    sentence = str(found.value)
    assert sentence.startswith(f"JAX_PLATFORMS={told or ''}: JAX cannot start it here{reason}")
    assert sentence.endswith("expected cpu or tpu")
    assert started == ["anew"]


@pytest.mark.parametrize("told", ["cuda", "nonsense"])
def test_a_program_says_which_platforms_are_here(told, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--clients=9", "--items=20", "--out=run"],
        env=programs.environment() | {"JAX_PLATFORMS": told},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={told}: JAX cannot start it here")
    assert line.endswith("expected cpu")
    assert not (tmp_path / "run").exists()
