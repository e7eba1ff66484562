"""Which of how many processes this is, from flags or from SLURM."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedvlr_jax.errors import UserError

# Ports that a job's number chooses from; 0 would be a free one, which the others could not know.
_FIRST_PORT, _PORTS = 20_000, 10_000


@dataclass(frozen=True)
class Place:
    """Where a process stands.

    Attributes:
        host: where process 0 runs, reachable from all others.
        port: where process 0 waits for the others.
        count: number of processes.
        index: of this one.
        local_device: the only accelerator of this process; None leaves it all that it sees.
    """

    host: str
    port: int
    count: int
    index: int
    local_device: int | None = None


def place_of_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Place | None:
    """The place that flags name, None where none of them is given.

    Raises:
        UserError: some are missing, or one makes no sense.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise UserError(
            f"--{missing[0]}: missing, expected --coordinator=HOST:PORT, --num_processes=N and "
            "--process_id=I together"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"--coordinator={coordinator}: expected HOST:PORT of process 0, like node1:4000"
        )
    if num_processes < 1:
        raise UserError(f"--num_processes={num_processes}: expected at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: expected 0 to {num_processes - 1} for "
            f"--num_processes={num_processes}"
        )
    return Place(host.strip("[]"), int(port), num_processes, process_id)


def place_of_slurm(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place of a task that `srun` started with others, None outside of such a step.

    The variables are those of srun's manual. Where a node has several tasks, each takes the
    accelerator of its local number, unless SLURM has given it one of its own already.
    """
    count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if count == 1:
        return None
    job, step = (int(environment.get(f"SLURM_{name}", "0")) for name in ("JOB_ID", "STEP_ID"))
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    visible = environment.get("CUDA_VISIBLE_DEVICES", environment.get("ROCR_VISIBLE_DEVICES", ""))
    shares = count > nodes and len(visible.split(",")) > 1
    return Place(
        host=first_node(environment["SLURM_STEP_NODELIST"]),
        port=_FIRST_PORT + (61 * job + step) % _PORTS,
        count=count,
        index=int(environment["SLURM_PROCID"]),
        local_device=int(environment["SLURM_LOCALID"]) if shares else None,
    )


def first_node(nodes: str) -> str:
    """The first host of a SLURM list: "a[007-9,12],b" -> "a007"."""
    prefix, number = re.match(r"([^\[,]*)(?:\[([^\],-]*))?", nodes).groups()
    return prefix + (number or "")
