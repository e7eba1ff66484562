"""Measurements in processes of their own: no contender inherits another's memory or threads."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
# Flower and Ray report their use over the network unless told otherwise.
_OFFLINE = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        task: the function of `benchmarks.worker` that does it.
        settings: of the workload, as `workload.config` takes them.
        contender: its flag value.
        seconds: to spend in timed rounds.
        devices: JAX's CPU devices; 0 leaves their number to the project.
        target: what is compiled for, "" for this machine's devices.
    """

    task: str
    settings: dict[str, Any]
    contender: str
    seconds: float = 0.0
    devices: int = 0
    target: str = ""


@dataclass(frozen=True)
class Failure:
    """Why there is no measurement, in a few words."""

    reason: str


def run(
    job: Job, limit: float, log: Path, more: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """Do a job in a new process.

    Args:
        job: what to do.
        limit: wall seconds after which the process is ended.
        log: a file for everything that it prints.
        more: environment variables of the process.

    Returns:
        What the task returned, or why it returned nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        arguments = [json.dumps(dataclasses.asdict(job)), str(result)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(job.devices) | dict(more or {}),
                start_new_session=True,
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return Failure(f"took longer than {limit:g} s")
            finally:
                _end(process)
        if code == 0 and result.exists():
            return json.loads(result.read_text())
    return Failure(_reason(code, log))


def _environment(devices: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    told = {"JAX_NUM_CPU_DEVICES": str(devices)} if devices else {}
    return os.environ | _OFFLINE | told | {"PYTHONPATH": path}


def _end(process: subprocess.Popen) -> None:
    """End a process with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _reason(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most often for want of memory"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:200] if lines else f"ended with code {code}"
