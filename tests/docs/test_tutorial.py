"""docs/tutorial.md, run as a reader does: block by block, in one shell, in an empty folder."""

import re

import pytest

from tests.docs.pages import DOCS, blocks, in_shell, shape

PAGE = DOCS / "tutorial.md"


def script(parts):
    """The commands of some blocks; Python becomes a program of its own."""
    lines = []
    for block in parts:
        if block.language == "sh":
            lines.append(block.text)
        elif block.language == "python":
            lines.append(f"python - <<'PYTHON'\n{block.text}PYTHON\n")
    return "\n".join(lines)


def promised(parts):
    """The shapes of the lines that the page shows as output."""
    lines = [line for part in parts if part.language == "text" for line in part.text.splitlines()]
    return [shape(line) for line in lines if line.strip() not in ("", "...")]


def assert_kept(parts, outputs):
    said = {shape(line) for text in outputs for line in text.splitlines()}
    for line in promised(parts):
        assert line in said, f"docs/tutorial.md promises {line!r}"


def test_making_data_and_mistakes_in_it(tmp_path):
    parts = blocks(PAGE)
    first_run = next(k for k, part in enumerate(parts) if "--out=runs/first" in part.text)
    outputs = in_shell(script(parts[:first_run]), tmp_path)
    assert_kept(parts[:first_run], outputs)
    assert outputs[1].count("error: ") == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_whole_tutorial(tmp_path):
    parts = blocks(PAGE)
    outputs = in_shell(script(parts), tmp_path)
    assert_kept(parts, outputs)
    for name in (
        *("first/summary.json", "first/user-7.html", "variants/results.csv"),
        *("variants/scaling.png", "paper/report.html", "paper/tables/accuracy.md"),
    ):
        assert (tmp_path / "runs" / name).is_file(), name
    weights = re.search(r"by looks +([\d.]+) +([\d.]+).*\nby words +([\d.]+) +([\d.]+)", outputs[0])
    looks_image, looks_text, words_image, words_text = map(float, weights.groups())
    assert looks_image > looks_text
    assert words_text > words_image
