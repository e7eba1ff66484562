"""Several processes that share the work of one machine, each with accelerators of its own.

JAX takes every accelerator that it sees, and most of its memory. So a process that wants fewer than
there are is shown some that no other one has, before JAX starts.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from fedvlr_jax import files
from fedvlr_jax.errors import UserError

_TPU = "TPU_VISIBLE_CHIPS"
_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "cuda",
    "HIP_VISIBLE_DEVICES": "rocm",
    "ROCR_VISIBLE_DEVICES": "rocm",
    _TPU: "tpu",
}
# Files of devices, by the variable that counts them from 0 on.
_FILES = {
    "CUDA_VISIBLE_DEVICES": ("nvidia[0-9]*",),
    _TPU: ("accel[0-9]*", "vfio/[0-9]*"),
}
# What libtpu wants to know beside the name of the only chip.
_ONE_CHIP = {
    "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_taken: list[IO] = []  # locks of this process's devices; the system opens them when it ends


class Devices(NamedTuple):
    """Accelerators of this machine, and the environment variable that shows some of them."""

    variable: str
    names: tuple[str, ...]


def visible(
    platforms: set[str], environment: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> Devices | None:
    """The accelerators that a process sees, without starting JAX; None where it cannot be told.

    Args:
        platforms: that JAX can start (`accelerators.startable`).
        environment: its variables. A list of devices that is given there is what there is.
        root: where the system's files are.
    """
    wanted = set(environment.get("JAX_PLATFORMS", "").lower().split(",")) - {""}
    if wanted:
        platforms = platforms & (wanted | ({"cuda", "rocm"} if "gpu" in wanted else set()))
    for variable, platform in _VARIABLES.items():
        if platform in platforms and variable in environment:
            listed = (name.strip() for name in environment[variable].split(","))
            # As CUDA reads it: up to the first that is none.
            names = itertools.takewhile(lambda x: x and not x.startswith("-"), listed)
            return Devices(variable, tuple(names))
    for variable, patterns in _FILES.items():
        if _VARIABLES[variable] in platforms:
            for pattern in patterns:
                if count := len(list((root / "dev").glob(pattern))):
                    return Devices(variable, tuple(map(str, range(count))))
    return None


def of_process(devices: Devices | None, each: int, number: int) -> dict[str, str]:
    """The variables by which a process of several sees accelerators of its own.

    Args:
        devices: of the machine.
        each: devices of a process, 0 for all.
        number: of the process, from 0 on.

    Returns:
        No variables where there is nothing to choose: every process takes all that it sees.

    Raises:
        UserError: earlier processes have all devices.
    """
    if devices is None or not 0 < each < len(devices.names):
        return {}
    # Which chips of a TPU can go together depends on how it is built.
    if devices.variable == _TPU and each > 1:
        return {}
    most = len(devices.names) // each
    if number >= most:
        raise UserError(
            f"--devices={each}: other processes have all {len(devices.names)} devices of this "
            f"machine ({devices.variable}={','.join(devices.names)}), expected at most {most} "
            "processes at a time"
        )
    own = devices.names[number * each : (number + 1) * each]
    shown = {devices.variable: ",".join(own)}
    return shown | (_ONE_CHIP if devices.variable == _TPU else {})


def take(each: int, devices: Devices | None, folder: Path | None = None) -> dict[str, str]:
    """Show this process `each` accelerators that no other has, as long as it lives.

    To be called before JAX starts. Processes of one user on one machine see what others have.

    Args:
        each: devices of a process, 0 for all.
        devices: of the machine, see `visible`.
        folder: where these processes keep their locks; by default that for temporary files.

    Returns:
        The variables that were set, none where there is nothing to choose.

    Raises:
        UserError: other processes have all devices.
        OSError: the folder cannot be written.
    """
    if _taken or not of_process(devices, each, 0):
        return {}
    if folder is None:
        folder = Path(tempfile.gettempdir(), f"fedvlr_jax-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with files.open_lock(folder / "devices.lock") as choosing:
        files.wait_for_lock(choosing)
        number, variables = 0, {}
        while not _taken:
            variables = of_process(devices, each, number)
            _taken.extend(_locked(folder, variables[devices.variable].split(",")))
            number += 1
    os.environ.update(variables)
    return variables


def _locked(folder: Path, names: Sequence[str]) -> list[IO]:
    """Locks of all these devices, none where another process has one of them."""
    with contextlib.ExitStack() as opened:
        # Parts of a GPU have slashes in their names.
        paths = [folder / f"device-{name.replace('/', '_')}.lock" for name in names]
        locks = [opened.enter_context(files.open_lock(path)) for path in paths]
        if not all(map(files.take_lock, locks)):
            return []
        opened.pop_all()
    return locks
