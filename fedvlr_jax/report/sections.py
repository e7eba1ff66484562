"""Results as one HTML page that needs nothing else: facts, then sections of tables and charts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fedvlr_jax.report import plotting, shell, tabulate
from fedvlr_jax.report.chart import Chart

_STYLE = """
main { max-width: 72rem; }
h2 { font-size: 1.25rem; scroll-margin-top: 1rem; }
p + p { margin-top: .5rem; }
dl { margin: 1rem 0 0; padding: .75rem 1rem; display: grid; gap: .35rem 1.25rem;
  grid-template-columns: max-content minmax(0, 1fr); background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; }
dt { color: var(--soft); }
dd { margin: 0; font: .9rem/1.6 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
nav ol { margin: 1rem 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .35rem 1.25rem; }
a { color: var(--bar); }
.scroll { margin-top: .75rem; width: fit-content; max-width: 100%; overflow-x: auto;
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding: .6rem .75rem; }
caption span { position: sticky; left: .75rem; display: inline-block;
  max-width: calc(100vw - 4rem); }
table { font-size: .9rem; }
th, td { padding: .35rem .75rem; text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--card); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 45rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .5rem; }
}
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: one line.
        text: plain text; blank lines part paragraphs.
        table: as `tabulate.as_html` shows it; so are `best`, `apart` and `among`.
        charts: below the table.
    """

    title: str
    text: str
    table: pd.DataFrame | None = None
    charts: tuple[Chart, ...] = ()
    best: tuple[str, ...] = ()
    apart: pd.Series | None = None
    among: tuple[str, ...] = ()


def page(title: str, facts: dict[str, str], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: its heading.
        facts: how the results were made: the command, versions, the data set; a page without them
            begins with its contents.
        sections: in order; the table of contents lists them.
    """
    named = list(enumerate(sections, 1))
    rows = "\n".join(
        f"<dt>{shell.text(name)}</dt><dd>{shell.text(value)}</dd>" for name, value in facts.items()
    )
    made = f"<dl>\n{rows}\n</dl>" if facts else ""
    contents = "\n".join(
        f'<li><a href="#part-{number}">{shell.text(section.title)}</a></li>'
        for number, section in named
    )
    parts = "\n".join(_section(number, section) for number, section in named)
    if any(section.charts for section in sections):
        parts += f"\n{plotting.library()}"
    body = f"""<h1>{shell.text(title)}</h1>
{made}
<nav aria-label="Contents"><ol>
{contents}
</ol></nav>
{parts}"""
    return shell.page(title, _STYLE + plotting.STYLE, body)


def _section(number: int, section: Section) -> str:
    text = "\n".join(f"<p>{shell.text(lines)}</p>" for lines in section.text.split("\n\n") if lines)
    table = ""
    if section.table is not None:
        table = tabulate.as_html(
            section.title, section.table, section.best, section.apart, section.among
        )
    charts = "\n".join(map(plotting.fragment, section.charts))
    drawn = f'<div class="charts">{charts}</div>' if charts else ""
    return f"""<section id="part-{number}">
<h2>{shell.text(section.title)}</h2>
{text}
{table}
{drawn}
</section>"""
