"""The pages of the documentation, and the blocks of code in them."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.experiments import programs
from tests.experiments.programs import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the line that its text begins in."""

    language: str
    text: str
    line: int


def blocks(path, *languages):
    """The blocks in these languages, in order; all of them if none is named."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)
        for found in _BLOCK.finditer(text)
        if not languages or found[1] in languages
    ]


def shape(line):
    """A line of output without what differs from machine to machine."""
    line = re.sub(r"<- its \w+ item|█", "", line)
    return " ".join(re.sub(r"\d[\d,.]*(e[+-]\d+)?", "0", line).split())


def name(path):
    """A page below the root, for the names of tests."""
    return str(path.relative_to(ROOT))


def in_shell(script, folder, pythonpath=ROOT):
    """Run lines in one shell that stops at the first error, as a user who has installed this."""
    environment = programs.environment(devices=2)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout, done.stderr
