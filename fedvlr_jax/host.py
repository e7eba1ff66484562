"""The memory that this process may use."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# Of the two versions of control groups: where they are mounted, and what holds a group's limit.
_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("sys/fs/cgroup/memory",)
_LIMITS = "memory.max", "memory.limit_in_bytes"


def host_bytes(root: Path = Path("/")) -> int:
    """The host's physical memory, or what a container or a cluster's job has of it, in bytes.

    Args:
        root: where the system's files are.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """The limits of this process's control group and of those that it is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 0
        for mount in _MOUNTS[version]:
            for group in _groups(root / mount, path):
                # Not there, or "max", which is none.
                with contextlib.suppress(OSError, ValueError):
                    yield int((group / _LIMITS[version]).read_text())


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """The folders of a control group and of those that it is in.

    A container may see a part of the tree only, whose top is its own group, while the path is that
    on the host: then the first names of the path are not there.
    """
    names = [name for name in path.split("/") if name not in ("", "..")]
    for first in range(len(names) + 1):
        here = mount.joinpath(*names[first:])
        if here.is_dir():
            yield here
            yield from list(here.parents)[: len(names) - first]
            return
