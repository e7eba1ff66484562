"""Accelerators that are installed for JAX and are not used by it."""

import functools
import importlib.metadata
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

# Distributions that make JAX start a platform, by the platform's name in JAX.
_PLUGINS = {
    "cuda": re.compile(r"jax-cuda\d+-plugin"),
    "rocm": re.compile(r"jax-rocm\d+-plugin"),
    "tpu": re.compile(r"libtpu(-nightly)?"),
    "METAL": re.compile(r"jax-metal"),
}
# JAX takes a plugin only beside the jaxlib of the same version; those for ROCm and Metal, and
# libtpu, have numbers of their own.
_NUMBERED_AS_JAXLIB = "cuda"
_VERSION = re.compile(r"\d+(\.\d+)*")


class _Plugin(NamedTuple):
    platform: str
    name: str
    version: str


@functools.cache
def warn_if_refused() -> None:
    """Log `refused` as a warning, once; without a handler Python prints it to stderr."""
    sentence = refused()
    if sentence is not None:
        logging.getLogger(__name__).warning(sentence)


def refused() -> str | None:
    """Why JAX, which has started, runs on the CPU although a plugin for others is installed.

    Returns:
        A sentence; None where it runs on something else, was told its platforms, or has no plugin.
    """
    if jax.config.jax_platforms or jax.default_backend() != "cpu":
        return None
    plugins = sorted(_installed())
    if not plugins:
        return None
    names = " and ".join(f"{plugin.name} {plugin.version}" for plugin in plugins)
    # JAX would take every one of them; what it says of one whose versions differ hides the cause.
    reasons = [reason for plugin in plugins if (reason := _misfit(plugin))]
    reasons = reasons or [_reason(plugin) for plugin in plugins]
    return (
        f"{names} {'is' if len(plugins) == 1 else 'are'} installed, but JAX runs on the CPU: "
        f"{'; '.join(reasons)} (where this is meant, set JAX_PLATFORMS=cpu)"
    )


def startable() -> set[str]:
    """The platforms beside the CPU that are installed as JAX takes them; JAX is not started."""
    return {plugin.platform for plugin in _installed() if _misfit(plugin) is None}


def _installed() -> Iterator[_Plugin]:
    for distribution in importlib.metadata.distributions():
        said = distribution.metadata or {}  # where its file is gone, by Python's version
        name, version = said.get("Name", ""), said.get("Version", "of an unknown version")
        name = re.sub(r"[-_.]+", "-", name).lower()
        for platform, pattern in _PLUGINS.items():
            if pattern.fullmatch(name):
                yield _Plugin(platform, name, version)


def _misfit(plugin: _Plugin) -> str | None:
    """How to get a plugin that fits, None if this one does."""
    if plugin.platform != _NUMBERED_AS_JAXLIB:
        return None
    jaxlib = importlib.metadata.version("jaxlib")
    if _numbers(plugin.version) == _numbers(jaxlib):
        return None
    extra = plugin.name.split("-")[1]
    return (
        f'the plugin does not fit jaxlib {jaxlib}, expected the same version (pip install "jax'
        f'[{extra}]=={jaxlib}")'
    )


def _numbers(version: str) -> str:
    """The numbers that a version begins with, which are all that JAX compares."""
    match = _VERSION.match(version)
    return match[0] if match else version


def _reason(plugin: _Plugin) -> str:
    """What JAX says of a platform that it has not started."""
    if plugin.platform == "cuda" and not _has_nvidia():
        return "this machine shows no NVIDIA device"
    try:
        jax.devices(plugin.platform)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        _, failed, reason = said.partition("failed to initialize: ")
        if failed:
            return f"{plugin.platform}: {reason.split('. Available backends')[0].rstrip('.')}"
    return f"it could not start {plugin.platform}, and has told above what went wrong"


def _has_nvidia() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
