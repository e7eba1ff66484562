"""What programs are compiled for: devices of this machine, or devices that are only described."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.experimental import topologies

from fedvlr_jax.errors import UserError

_H100 = Path(__file__).parent / "h100.txt"
_TPUS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
_GPUS = {"h100": "H100"}
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_EXPECTED = "expected names like cpu:1, gpu:1, tpu:4, h100:8, v5e:2x2 or v6e:2x4"


@dataclass(frozen=True)
class Target:
    """Some devices.

    Attributes:
        name: as in the flag.
        platform: cpu, gpu or tpu.
        kind: what JAX calls such a device; "" for whatever this machine has.
        shape: how many there are in each direction.
    """

    name: str
    platform: str
    kind: str
    shape: tuple[int, ...]

    @property
    def n_devices(self) -> int:
        """How many devices."""
        found = 1
        for side in self.shape:
            found *= side
        return found


def parsed(name: str) -> Target:
    """The target of a name: the kind of device, a colon, and how many or their arrangement.

    Raises:
        UserError: there is no such target.
    """
    kind, _, size = name.partition(":")
    sides = size.split("x")
    if not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"--targets={name}: {_EXPECTED}")
    shape = tuple(map(int, sides))
    if kind in _TPUS and len(shape) > 1:
        return Target(name, "tpu", _TPUS[kind], shape)
    if len(shape) == 1 and kind in _GPUS:
        return Target(name, "gpu", _GPUS[kind], shape)
    if len(shape) == 1 and kind in ("cpu", "gpu", "tpu"):
        return Target(name, kind, "", shape)
    raise UserError(f"--targets={name}: {_EXPECTED}")


def missing(target: Target) -> str | None:
    """What has to be installed to compile for the target, None if nothing has to."""
    if target.platform == "tpu" and not importlib.util.find_spec("libtpu"):
        return 'the TPU compiler is not installed here: pip install "jax[tpu]"'
    if target.platform == "gpu" and not any(map(importlib.util.find_spec, _CUDA_PLUGINS)):
        return 'the GPU compiler is not installed here: pip install "jax[cuda12]"'
    return None


def environment(target: Target) -> dict[str, str]:
    """What has to be set before JAX is imported to compile for the target."""
    if target.platform == "cpu":
        return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(target.n_devices)}
    if _has(target.platform):
        return {}
    if target.platform == "tpu":
        return {
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run: others may compile beside
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }
    # Choosing among ways to compute a product by timing them needs a device.
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    return {
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
    }


def devices(target: Target) -> tuple[Sequence[jax.Device], bool]:
    """The target's devices, and whether they are this machine's own and can run programs.

    Raises:
        UserError: this machine has fewer or none, and they cannot be described.
    """
    own = [device for device in jax.devices() if device.platform == target.platform]
    own = [device for device in own if target.kind in device.device_kind][: target.n_devices]
    if len(own) == target.n_devices:
        return own, True
    if not target.kind:
        raise UserError(f"--targets={target.name}: this machine has {len(own)} such devices")
    if target.platform == "tpu":
        topology = topologies.get_topology_desc(platform="tpu", topology_name=target.name)
    else:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=_H100.read_text(),
            topology=f"1x1x{target.n_devices}",
        )
    return topology.devices, False


def _has(platform: str) -> bool:
    """Whether there is a device of the platform, as far as one can tell without JAX."""
    seen = {"gpu": ("nvidia0",), "tpu": ("accel0", "vfio/0")}[platform]
    return any(Path("/dev", name).exists() for name in seen)
