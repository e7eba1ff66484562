"""Start the project's programs as a user does: processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from absl import flags

from experiments import cli

ROOT = Path(__file__).parent.parent.parent
# Begins the script of a process that needs a few modules: all of the package would take seconds.
IN_PARTS = f"""
import sys, types
package = sys.modules["fedvlr_jax"] = types.ModuleType("fedvlr_jax")
package.__path__ = [{str(ROOT / "fedvlr_jax")!r}]
"""


def run(module, *flags, cwd=None, devices=1, quick=False):
    """Run `python -m module flags`; XLA's settings of the tests, which are `quick`, if wanted."""
    settings = {"XLA_FLAGS": os.environ["XLA_FLAGS"]} if quick else {}
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:fedvlr_jax", "-m", module, *flags],
        cwd=cwd or ROOT,
        env=environment(devices) | settings,
        capture_output=True,
        text=True,
        timeout=600,
    )


def in_process(program, capsys, *arguments):
    """(exit code, stdout, stderr) of a main, run here to save the start of a process."""
    values = flags.FlagValues()
    program.define_flags(values)
    old, sys.argv = sys.argv, [program.__name__, *map(str, arguments)]
    code = 0
    try:
        cli.run(program.main, values, program.USAGE)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = old
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def environment(devices=1):
    """The environment of a user with `devices` virtual devices; compiled programs are shared."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "COV_", "NPROC"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
