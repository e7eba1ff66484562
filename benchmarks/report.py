"""Tables of the benchmarks."""

import io
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedvlr_jax import files

_WIDTH = 110  # characters


def table(title: str, heads: Sequence[str], left: int = 1) -> Table:
    """An empty table; the first `left` columns hold text, the others numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for k, head in enumerate(heads):
        made.add_column(head, justify="left" if k < left else "right", no_wrap=k > 0)
    return made


def show(parts: Sequence[Table | str], out: Path, name: str, width: int = _WIDTH) -> None:
    """Print tables and lines, and write them as plain text to `out`/`name`."""
    text = io.StringIO()
    for console in (Console(width=width), Console(file=text, width=width)):
        for part in parts:
            console.print(part, markup=False, highlight=False)
    files.write_text(out / name, text.getvalue())
