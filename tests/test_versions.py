"""The versions that are allowed are those that are tested."""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def _requirements(path):
    """The requirements of a file, by name."""
    lines = (line.split(" #")[0].strip() for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in found}


ALLOWED = _requirements(ROOT / "requirements.txt")


def _bound(requirement, operator):
    (version,) = (part.version for part in requirement.specifier if part.operator == operator)
    return version


def test_the_oldest_versions_allowed_are_those_of_the_smoke_run():
    oldest = _requirements(ROOT / ".ci" / "oldest.txt")
    for name, requirement in ALLOWED.items():
        least, tested = Version(_bound(requirement, ">=")), _bound(oldest[name], "==")
        assert requirement.specifier.contains(tested), name
        # A bound of two numbers may be tested with the first repair of that version.
        assert Version(tested).release[: len(least.release)] == least.release, name


def test_every_bound_above_is_there():
    assert all(_bound(requirement, "<") for requirement in ALLOWED.values())


def test_what_is_installed_is_allowed():
    for name, requirement in ALLOWED.items():
        assert requirement.specifier.contains(metadata.version(name)), name
