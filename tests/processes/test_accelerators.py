import importlib.metadata
import subprocess
import sys

import jax
import pytest

from fedvlr_jax.processes import accelerators
from tests.experiments import programs

JAXLIB = importlib.metadata.version("jaxlib")


@pytest.fixture(autouse=True)
def _untold():
    """JAX, which the tests run on the CPU, as if it had chosen that by itself."""
    jax.devices()
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


def _pretend(folder, name, version):
    """Write what makes Python believe that a distribution is installed."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return importlib.metadata.Distribution.at(info)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """A function that lets these distributions, and no others, be installed."""

    def only(**versions):
        found = [_pretend(tmp_path, name, version) for name, version in versions.items()]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)

    return only


def test_what_jax_can_start_is_known_before_it_starts(install):
    install(jax_cuda12_plugin=JAXLIB, libtpu="0.0.21", numpy="2.3.1")
    assert accelerators.startable() == {"cuda", "tpu"}
    install(jax_cuda13_plugin="0.6.0")
    assert accelerators.startable() == set()


@pytest.mark.parametrize("name", ["jax_cuda12_plugin", "jax-cuda13-plugin"])
def test_a_plugin_of_another_version_is_told_with_the_way_out(install, name):
    install(**{name: "0.6.0"})
    sentence = accelerators.refused()
    cuda = name[4:10]
    assert sentence.startswith(f"jax-{cuda}-plugin 0.6.0 is installed, but JAX runs on the CPU")
    assert f"does not fit jaxlib {JAXLIB}" in sentence
    assert f'pip install "jax[{cuda}]=={JAXLIB}"' in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "version", "has_nvidia", "words"),
    [
        ("jax_cuda12_plugin", JAXLIB, False, "this machine shows no NVIDIA device"),
        ("jax_cuda12_plugin", f"{JAXLIB}+some.build", True, "it could not start cuda"),
        ("libtpu", "0.0.21", False, "it could not start tpu"),
        ("jax_rocm7_plugin", "0.6.0", False, "it could not start rocm"),
        ("jax_metal", "0.1.1", False, "it could not start METAL"),
    ],
)
def test_a_plugin_that_fits_is_told_with_what_it_lacks(
    install, monkeypatch, name, version, has_nvidia, words
):
    install(**{name: version})
    monkeypatch.setattr(accelerators, "_has_nvidia", lambda: has_nvidia)
    sentence = accelerators.refused()
    assert words in sentence
    assert "does not fit" not in sentence
    assert "JAX_PLATFORMS=cpu" in sentence


def test_what_jax_says_of_a_platform_is_told(install, monkeypatch):
    def devices(platform):
        raise RuntimeError(
            f"Backend '{platform}' failed to initialize: NOT_FOUND: No\n device found.. Available "
            "backends are ['cpu']"
        )

    install(libtpu="0.0.21")
    monkeypatch.setattr(jax, "devices", devices)
    assert ": tpu: NOT_FOUND: No device found (where" in accelerators.refused()


def test_of_several_plugins_the_one_whose_version_differs_is_the_reason(install):
    install(libtpu="0.0.21", jax_cuda12_plugin="0.6.0")
    sentence = accelerators.refused()
    assert "jax-cuda12-plugin 0.6.0 and libtpu 0.0.21 are installed" in sentence
    assert "does not fit" in sentence
    assert "tpu:" not in sentence


def test_nothing_is_told_without_a_plugin_or_where_the_platform_was_asked_for(install, monkeypatch):
    install(jax="0.6.0", jax_cuda12_pjrt="0.6.0", libtpu_like="1.0")
    assert accelerators.refused() is None
    install(jax_cuda12_plugin="0.6.0")
    assert accelerators.refused() is not None
    for told in ("cpu", "cuda,cpu"):
        jax.config.update("jax_platforms", told)
        assert accelerators.refused() is None
    jax.config.update("jax_platforms", "")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert accelerators.refused() is None


@pytest.mark.parametrize("platforms", [None, "cpu"])
def test_a_program_tells_it_once_on_stderr(tmp_path, platforms):
    _pretend(tmp_path, "jax_cuda12_plugin", "0.6.0")
    script = "from fedvlr_jax.processes import cores; cores.begin(); cores.begin()"
    environment = programs.environment() | {"PYTHONPATH": f"{programs.ROOT}:{tmp_path}"}
    # Where libtpu is installed it would ask the network whose machine this is.
    environment |= {"TPU_SKIP_MDS_QUERY": "1"}
    del environment["JAX_PLATFORMS"]
    environment |= {} if platforms is None else {"JAX_PLATFORMS": platforms}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.count("jax-cuda12-plugin 0.6.0") == (platforms is None)
