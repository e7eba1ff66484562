"""Which of how many processes this is, from flags or from SLURM."""

import ipaddress
import os
import re
import socket
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
    host, port = _address(coordinator)
    if num_processes < 1:
        raise UserError(f"--num_processes={num_processes}: expected at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: expected 0 to {num_processes - 1} for "
            f"--num_processes={num_processes}"
        )
    return Place(host, port, num_processes, process_id)


def _address(coordinator: str) -> tuple[str, int]:
    """HOST:PORT, the host without brackets.

    Raises:
        UserError: it is none of one host.
    """
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:\s]+)):([0-9]{1,5})", coordinator)
    if not match or not 0 < int(match[3]) < 1 << 16 or not _is_host(match[1] or match[2]):
        raise UserError(
            f"--coordinator={coordinator}: expected HOST:PORT of process 0, like node1:4000 "
            "or [2001:db8::1]:4000"
        )
    host = match[1] or match[2]
    if _is_everywhere(host):
        raise UserError(
            f"--coordinator={coordinator}: that is every address of a host, expected the one at "
            "which the others reach process 0"
        )
    return host, int(match[3])


def _is_host(host: str) -> bool:
    """Whether the system can be asked for it."""
    try:
        return b"\0" not in host.encode("idna")
    except UnicodeError:
        return False


def _is_everywhere(host: str) -> bool:
    """Whether this is 0.0.0.0 or ::, however it is written."""
    try:
        resolved = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:  # a name
        return False
    return any(ipaddress.ip_address(address[0]).is_unspecified for *_, address in resolved)


def place_of_slurm(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place of a task that `srun` started with others, None outside of such a step.

    The variables are those of srun's manual. Where a node has several tasks, each takes the
    accelerator of its local number, unless SLURM has given it one of its own already.

    Raises:
        UserError: the variables make no sense.
    """
    count = _number(environment, "SLURM_STEP_NUM_TASKS", "1")
    if count <= 1:
        return None
    job, step = (_number(environment, f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID"))
    nodes = _number(environment, "SLURM_STEP_NUM_NODES", "1")
    index = _number(environment, "SLURM_PROCID")
    if index >= count:
        raise UserError(
            f"SLURM_PROCID={index}: expected 0 to {count - 1} for SLURM_STEP_NUM_TASKS={count}"
        )
    visible = environment.get("CUDA_VISIBLE_DEVICES", environment.get("ROCR_VISIBLE_DEVICES", ""))
    shares = count > nodes and len(visible.split(",")) > 1
    return Place(
        host=first_node(environment.get("SLURM_STEP_NODELIST", "")),
        port=_FIRST_PORT + (61 * job + step) % _PORTS,
        count=count,
        index=index,
        local_device=_number(environment, "SLURM_LOCALID") if shares else None,
    )


def first_node(nodes: str) -> str:
    """The first host of a SLURM list: "a[007-9,12],b" -> "a007".

    Raises:
        UserError: it is no such list.
    """
    first = re.sub(r"\[([^\[\],-]+)[^\[\]]*\]", r"\1", nodes).split(",")[0]
    if not re.fullmatch(r"[^\[\]\s]+", first) or not _is_host(first):
        raise UserError(
            f"SLURM_STEP_NODELIST={nodes}: expected a list of nodes, like node[1-4]; where this is "
            "no step of srun, unset SLURM_STEP_NUM_TASKS"
        )
    return first


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    """A variable of SLURM's.

    Raises:
        UserError: it is no whole number.
    """
    text = environment.get(name, default)
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UserError(
            f"{name}={text}: expected a whole number from srun; where this is no step of srun, "
            "unset SLURM_STEP_NUM_TASKS"
        )
    return int(text)
