"""docs/flags.md against the flags that there are."""

from docs.tools import flags
from tests.docs.pages import ROOT


def test_the_page_is_up_to_date():
    found = flags.PAGE.read_text(encoding="utf-8")
    assert found == flags.page(), "run python -m docs.tools.flags"


def test_every_program_is_on_it():
    for folder in ("experiments", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            if "\nUSAGE = " in path.read_text(encoding="utf-8"):
                assert f"{folder}.{path.stem}" in flags.PROGRAMS
