"""Eight virtual devices for every test; what the tests share."""

import gc
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Small examples spend their time compiling; programs that tests start as processes of their own
# are compiled as a user's are (they do not inherit this, see tests/experiments). Kernels made by
# way of MLIR take twice as long, and so does splitting them between threads of a busy machine.
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
# XLA ends the process at a flag that it does not know, and this one is gone from jax 0.11.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
# Set for users by fedvlr_jax/processes/cores.py, which comes too late here.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 13):
    _FLAGS.append("--xla_cpu_enable_concurrency_optimized_scheduler=false")
os.environ["XLA_FLAGS"] = " ".join(_FLAGS)
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # an eighth of the time of compiling
# Tests compile the same small programs again and again; all processes of a session share them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="fedvlr_jax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# A thread for everything that may wait for another device, where tests start several programs
# at once (see fedvlr_jax/processes/cores.py).
os.environ["NPROC"] = "32"

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
# Compiling dominates small examples, and the machines that run the tests are shared.
settings.register_profile("tests", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("tests")


@pytest.fixture(autouse=True, scope="module")
def _begin_without_programs() -> None:
    """Let go of the programs of other modules: a process can hold only so many of them."""
    jax.clear_caches()
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def _nothing_to_collect() -> None:
    """Hide what is there from Python's garbage collector: modules, and all that JAX remembers.

    A run collects garbage when it begins, so that no other's memory is counted to it. With the
    programs of many tests in a process that takes longer than the run.
    """
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Show it again: pytest looks at the end for what nobody has closed."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _as_programs() -> Iterator[None]:
    """Sentences are tested as programs tell them; tests/test_errors.py has what Python tells."""
    from fedvlr_jax.errors import naming_flags  # not before types are checked on import

    with naming_flags():
        yield


@pytest.fixture(scope="session")
def ku() -> Path:
    """The KU data set; tests that need it skip where it is not."""
    places = (os.environ.get("FEDVLR_KU"), "data/KU", "../shared/datasets/KU")
    root = Path(__file__).parent.parent
    for place in places:
        if place and (root / place / "inter.csv").is_file():
            return root / place
    pytest.skip("the KU data set is not in data/KU (see README: where it is published)")
