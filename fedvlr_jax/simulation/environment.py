"""The version and settings of JAX that decide a run's numbers: recorded, and compared later."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from fedvlr_jax import numerics, plugins
from fedvlr_jax.foreign import short

VERSION, PLATFORM, DEVICE, PLUGINS = "version", "platform", "device_kind", "plugins"
# Settings of JAX that change draws or how numbers are held. A version of JAX may lack one.
_SETTINGS = (
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_enable_x64",
)
_UNKNOWN = "unknown"


@numerics.as_written()
def in_force(own: Sequence[str] | None = None) -> dict[str, Any]:
    """JAX's version, platform (cpu, gpu, tpu), device and settings; digests of `own` plugins."""
    return {
        VERSION: jax.__version__,
        PLATFORM: jax.default_backend(),
        DEVICE: jax.devices()[0].device_kind,
        **{name: getattr(jax.config, name) for name in _SETTINGS if hasattr(jax.config, name)},
        **({PLUGINS: plugins.digest(own)} if own else {}),
    }


def difference(began: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why what began cannot go on now, None if it can: another setting gives other numbers."""
    for name in _SETTINGS:
        if name in began and name in now and began[name] != now[name]:
            was = short(began[name], 40)
            return (
                f"{name} was {was} and is now {now[name]}, which gives other numbers; set "
                f"{name.upper()}={was} in the environment to go on"
            )
    return None


def notes(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may make numbers differ from those of a run that was not interrupted."""
    if not began:
        return [
            "began with an older version of this package, which did not record JAX's version and "
            "settings: numbers may differ from an uninterrupted run's if these have changed"
        ]
    found = []
    for name, what, written in (
        # Without a version's third number, which stands for repairs.
        (VERSION, "jax", lambda version: ".".join(version.split(".")[:2])),
        (PLATFORM, "platform", str),
        (DEVICE, "device", str),
        (PLUGINS, "plugins", str),
    ):
        if name not in now:  # plugins that are not needed any more
            continue
        # Versions that did not record devices; and another platform has other devices.
        if name == DEVICE and (DEVICE not in began or any("platform" in note for note in found)):
            continue
        first, *others = map(written, _listed(began.get(name)))
        if {first, *others} != {written(now[name])}:
            found.append(
                f"began with {what} {first}, goes on with {written(now[name])}: numbers may differ "
                "from an uninterrupted run's"
            )
    return found


def joined(began: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is written of a run that goes on: its versions, platforms and devices in order."""
    both = {
        name: ", ".join(dict.fromkeys([*_listed(began.get(name)), now[name]]))
        for name in (VERSION, PLATFORM, DEVICE, PLUGINS)
        if name in now
    }
    return {**now, **both}


def _listed(text: Any) -> list[str]:
    return text[:200].split(", ") if isinstance(text, str) else [_UNKNOWN]
