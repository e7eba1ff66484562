"""Programs of earlier starts, found by what they are made from, so that nothing is even traced.

JAX keeps what it has compiled by the text of a program, and half of a minute's compilation is left
for a start that has to make this text to find it. Here a program is found by all that decides it:
the settings, this package's source, the versions of what it is traced with, and the devices.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.sharding import Mesh, NamedSharding
from jax.stages import Compiled, Lowered

from fedvlr_jax import compilation, files
from fedvlr_jax.processes import together

_PACKAGE = Path(__file__).parents[1]
# What is made of these is known by its name: their source is this package's, or has a version.
# Programs with anything of a plugin's in them are not kept: what it imports, nobody can tell.
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "numpy")
_KNOWN = {_PACKAGE.name, "builtins", *_VERSIONED}
_CACHES = ("jax_compilation_cache", "jax_persistent_cache", "jax_enable_compilation_cache")
_VARIABLES = ("XLA_", "LIBTPU_", "TPU_", "NVIDIA_TF32")
_DIGEST = hashlib.sha256().digest_size


class _UnknownError(Exception):
    """Something of which it cannot be told whether it is the same at the next start."""


def compiled(
    settings: Any, mesh: Mesh, lower: Callable[[Any], Mapping[str, Lowered]]
) -> dict[str, Compiled]:
    """Programs by name: kept ones (`compilation.keep`), or compiled and kept.

    Args:
        settings: all that the programs depend on.
        mesh: the devices that each of them runs on.
        lower: a function of this package, settings -> programs before they are compiled.
    """
    path = _path(settings, lower)
    if path is None:
        return _compiled(settings, lower)
    found = _read(path, mesh)
    if found is None:
        with compilation.anew():  # XLA writes a program that it has read, but not all of it
            found = _compiled(settings, lower)
        _write(path, found)
    return found


def _compiled(settings: Any, lower: Callable) -> dict[str, Compiled]:
    return {name: program.compile() for name, program in lower(settings).items()}


def _path(settings: Any, lower: Callable) -> Path | None:
    """The file of these programs, None where none is kept."""
    folder = compilation.folder()
    if folder is None or together.count() > 1:
        return None
    try:
        what = _described((settings, lower))
    except _UnknownError:
        return None
    text = "\n".join([what, *_surroundings()])
    return folder / f"programs-{hashlib.sha256(text.encode()).hexdigest()}-cache"


def _read(path: Path, mesh: Mesh) -> dict[str, Compiled] | None:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        os.utime(path)  # it is used, and not the first to go (`compilation.thin`)
        devices = list(mesh.devices.flat)
        return {
            name: serialize_executable.deserialize_and_load(*program, execution_devices=devices)
            for name, program in pickle.loads(content[_DIGEST:]).items()
        }
    except Exception:  # whatever is wrong with it, the programs are compiled
        return None


def _write(path: Path, programs: Mapping[str, Compiled]) -> None:
    try:
        content = pickle.dumps(
            {name: serialize_executable.serialize(one) for name, one in programs.items()}
        )
        files.write_bytes(path, hashlib.sha256(content).digest() + content)
    except Exception:  # a full disk, or a platform whose programs cannot be written
        return


def _surroundings() -> list[str]:
    """What decides a program beside its settings."""
    values = {name: getattr(jax.config, name, None) for name in sorted(jax.config.values)}
    devices = jax.devices()
    return [
        _source(),
        platform.python_version(),
        *(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONED),
        *(f"{name}={value!r}" for name, value in values.items() if not name.startswith(_CACHES)),
        *sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_VARIABLES)),
        devices[0].client.platform_version,
        *(f"{device.id} {device.device_kind}" for device in devices),
    ]


@functools.cache
def _source() -> str:
    """A digest of this package."""
    found = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(_PACKAGE)} {files.sha256(path)}\n".encode())
    return found.hexdigest()


def _described(x: Any) -> str:
    """A text that is the same at another start exactly where this is.

    Raises:
        _UnknownError: there is something in it that is not known by a name, like a function of
            somebody else's module.
    """
    match x:
        case None | bool() | int() | float() | str() | np.dtype() | np.generic():
            return f"{type(x).__name__} {x!r}"
        case tuple() | list():
            return f"{_name(type(x))}({', '.join(map(_described, x))})"
        case dict():
            return _described(tuple(x.items()))
        case Mesh():
            kinds = [(device.id, device.device_kind) for device in x.devices.flat]
            return f"Mesh {x.devices.shape} {x.axis_names} {x.axis_types} {kinds}"
        case NamedSharding():
            return f"{_described(x.mesh)} {x.spec} {x.memory_kind}"
        case jax.ShapeDtypeStruct():
            return f"{x.shape} {x.dtype} {x.weak_type} {_described(x.sharding)}"
        case jax.tree_util.PyTreeDef():
            return str(x)
        case type():
            return _name(x)
        case functools.partial():
            return f"partial {_described((x.func, x.args, x.keywords))}"
        case types.FunctionType():
            held = tuple(cell.cell_contents for cell in x.__closure__ or ())
            code = hashlib.sha256(x.__code__.co_code).hexdigest()
            held += (x.__defaults__, x.__kwdefaults__)
            _check_known(x.__globals__.get("__name__"))  # where its code is, whatever its name says
            return f"{_name(x)} {x.__code__.co_firstlineno} {code} {_described(held)}"
    if dataclasses.is_dataclass(x):
        fields = [field.name for field in dataclasses.fields(x) if field.compare]
        return f"{_name(type(x))} {_described([(name, getattr(x, name)) for name in fields])}"
    if hasattr(x, "__wrapped__"):  # what jax.jit and functools make of a function
        return f"{_name(type(x))} {_described(x.__wrapped__)}"
    raise _UnknownError(type(x))


def _name(x: Any) -> str:
    """The name of a class or function of which the source is known.

    Raises:
        _UnknownError: it is somebody else's.
    """
    _check_known(x.__module__)
    return f"{x.__module__}.{x.__qualname__}"


def _check_known(module: Any) -> None:
    if str(module).partition(".")[0] not in _KNOWN:
        raise _UnknownError(module)
