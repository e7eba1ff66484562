"""How much memory there is: what a container may use, and not what its host has."""

import os

import pytest

from fedvlr_jax.host import host_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
V2, V1 = "memory.max", "memory.limit_in_bytes"
UNLIMITED = "9223372036854771712"  # as the first version writes it

# What /proc/self/cgroup says, the files of limits below /sys/fs/cgroup, and the bytes there are.
CASES = {
    "no groups": ("", {}, PHYSICAL),
    "v2, none": ("0::/\n", {"memory.max": "max"}, PHYSICAL),
    "v2, a container's own top": ("0::/\n", {V2: "1000"}, 1000),
    "v2, own group": ("0::/a/b\n", {f"a/b/{V2}": "1000", f"a/{V2}": "max"}, 1000),
    "v2, an outer group": ("0::/a/b/c\n", {f"a/b/c/{V2}": "max", f"a/{V2}": "3000"}, 3000),
    "v2, the smallest": ("0::/a/b\n", {f"a/b/{V2}": "2000", f"a/{V2}": "1000"}, 1000),
    "v2, another group's": ("0::/a\n", {f"a/{V2}": "max", f"b/{V2}": "1000"}, PHYSICAL),
    "v2, the host's path": ("0::/docker/1234\n", {V2: "1000"}, 1000),
    "v2, below the host's path": ("0::/docker/1/job\n", {f"job/{V2}": "9", V2: "1000"}, 9),
    "v2, outside of the namespace": ("0::/../../job\n", {V2: "1000"}, 1000),
    "v2, larger than the host": ("0::/\n", {V2: str(2 * PHYSICAL)}, PHYSICAL),
    "v1": ("5:cpu:/a\n4:memory:/a\n", {f"memory/a/{V1}": "1000", f"memory/{V1}": UNLIMITED}, 1000),
    "v1, with others": ("4:cpu,memory:/a\n", {f"memory/a/{V1}": "1000"}, 1000),
    "v1, an outer group": (
        "4:memory:/slurm/job1/step0\n",
        {f"memory/slurm/job1/{V1}": "1000", f"memory/slurm/job1/step0/{V1}": UNLIMITED},
        1000,
    ),
    "v1, the host's path": ("4:memory:/docker/1234\n", {f"memory/{V1}": "1000"}, 1000),
    "v1, of another controller": ("4:cpu:/a\n", {f"memory/a/{V1}": "1000"}, PHYSICAL),
    "both": ("4:memory:/a\n0::/b\n", {f"memory/a/{V1}": "2000", f"unified/b/{V2}": "1000"}, 1000),
    "a path with a colon": ("0::/a:b\n", {f"a:b/{V2}": "1000"}, 1000),
    "no number": ("0::/\n", {V2: "?"}, PHYSICAL),
}


@pytest.mark.parametrize("case", CASES)
def test_a_containers_limit_counts(tmp_path, case):
    said, limits, expected = CASES[case]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(said)
    for name, limit in limits.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    assert host_bytes(tmp_path) == expected


def test_without_control_groups_all_of_the_host_counts(tmp_path):
    assert host_bytes(tmp_path) == PHYSICAL


def test_this_process_has_some():
    assert 0 < host_bytes() <= PHYSICAL
