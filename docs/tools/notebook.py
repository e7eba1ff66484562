"""Execute docs/first_steps.ipynb, with what it prints and draws: python -m docs.tools.notebook"""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "first_steps.ipynb"
_SECONDS = 900  # of one cell at most


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, executed in a folder and without what differs every time.

    Args:
        notebook: is changed.
        folder: where its cells write.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    root = str(NOTEBOOK.parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=resources)
    client.execute()
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = executed(nbformat.read(NOTEBOOK, as_version=4), Path(folder))
    nbformat.write(found, NOTEBOOK)
    print(f"written to {NOTEBOOK}, {NOTEBOOK.stat().st_size / 1000:.0f} kB")
