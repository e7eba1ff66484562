"""Draw docs/assets/speed.png from the race in docs/benchmarks.md: python -m docs.tools.speed"""

import re
from pathlib import Path

from fedvlr_jax.report import drawing

PAGE = Path(__file__).parents[1] / "benchmarks.md"
PICTURE = PAGE.parent / "assets" / "speed.png"
# The contenders that are drawn, by their names in the table.
SHOWN = {"fedvlr_jax": "fedvlr_jax", "vmap": "plain vmap", "drjax": "DrJAX", "flower": "Flower"}
CLIENTS = ("1,000", "10,000 (W)")


def rates() -> dict[str, dict[str, int | None]]:
    """Client updates a second of each of `CLIENTS` and `SHOWN`, by the page's first race.

    None where a contender was not measured.
    """
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("| clients | "))
    sizes = _cells(lines[first])
    found: dict[str, dict[str, int | None]] = {clients: {} for clients in CLIENTS}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, *numbers = _cells(line)
        for clients in CLIENTS if name in SHOWN else ():
            number = numbers[sizes.index(clients) - 1].replace(",", "")
            found[clients][name] = int(number) if number else None
    return found


def draw() -> None:
    """Write the picture; the numbers that it shows stand in it as text, too."""
    found = rates()
    figure = drawing.empty(4.6 * len(CLIENTS), 2.3)
    axes = figure.subplots(1, len(CLIENTS))
    for axis, (clients, numbers) in zip(axes, found.items(), strict=True):
        widths = [number or 0 for number in numbers.values()]
        axis.barh(range(len(numbers)), widths, color=["#0072B2", *["#999999"] * 3], height=0.7)
        axis.set_yticks(range(len(numbers)), [SHOWN[name] for name in numbers])
        axis.invert_yaxis()
        for place, number in enumerate(numbers.values()):
            text = "not measured" if number is None else f"{number:,}"
            axis.text((number or 0) + max(widths) / 60, place, text, va="center")
        axis.set_xlim(0, 1.22 * max(widths))
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_title(f"{re.sub(r' .*', '', clients)} clients", loc="left", fontsize=11)
    figure.supxlabel("client updates a second, two cores of an AMD EPYC", fontsize=10)
    figure.savefig(PICTURE, dpi=drawing.DPI, metadata={"Description": str(found)})


def _cells(line: str) -> list[str]:
    return [cell.strip(" `") for cell in line.strip("|\n").split("|")]


if __name__ == "__main__":
    draw()
    print(f"written to {PICTURE}")
