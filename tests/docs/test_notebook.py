"""docs/first_steps.ipynb: what is committed, and that it still runs."""

import base64
import json
import subprocess
import sys
import warnings

import pytest

from tests.docs.pages import DOCS, ROOT
from tests.experiments import programs

NOTEBOOK = DOCS / "first_steps.ipynb"

# nbclient as a program of its own: what its libraries warn of is no concern of these tests.
EXECUTE = """
import pathlib, sys, nbformat
from docs.tools import notebook
found = nbformat.read(notebook.NOTEBOOK, as_version=4)
nbformat.write(notebook.executed(found, pathlib.Path(sys.argv[1])), sys.argv[2])
"""


def outputs(notebook):
    return [o for cell in notebook["cells"] for o in cell.get("outputs", [])]


def pictures(notebook):
    data = [output.get("data", {}).get("image/png") for output in outputs(notebook)]
    return [base64.b64decode(picture) for picture in data if picture]


def printed(notebook):
    return "".join("".join(output.get("text", "")) for output in outputs(notebook))


def test_it_is_committed_as_it_ran():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for o in outputs(notebook) if o["output_type"] == "error"]
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    assert len(pictures(notebook)) == 2
    assert sum(map(len, pictures(notebook))) < 300_000
    assert "/tmp" not in json.dumps(notebook)
    assert "/home" not in json.dumps(notebook)


@pytest.mark.slow
def test_it_runs(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("nbclient")
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(tmp_path), str(tmp_path / "again.ipynb")],
        cwd=ROOT,
        env=programs.environment(devices=2),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "again.ipynb").read_text(encoding="utf-8"))
    assert len(pictures(again)) == 2
    assert "rank correlation" in printed(again)
