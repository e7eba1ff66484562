"""Start the project's programs as a user does: processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run(module, *flags, cwd=None, devices=1):
    """Run `python -m module flags`; XLA's settings of the tests are not inherited."""
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:fedvlr_jax", "-m", module, *flags],
        cwd=cwd or ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=600,
    )


def environment(devices=1):
    """The environment of a user with `devices` virtual devices."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "COV_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
