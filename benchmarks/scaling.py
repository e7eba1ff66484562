"""How a round grows with clients, items, views and cohort: python -m benchmarks.scaling"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.table import Table

from benchmarks import flags as shared
from benchmarks import jobs, machine, report, workload
from benchmarks.contenders.names import REFERENCE
from benchmarks.jobs import Failure, Job
from experiments import cli
from fedvlr_jax import files
from fedvlr_jax.errors import UserError
from fedvlr_jax.names import VIEWS
from fedvlr_jax.report import chart, drawing
from fedvlr_jax.report.chart import Chart, Panel, Series

USAGE = """
    usage: python -m benchmarks.scaling [--axes=clients,items,...] [--clients=100,1000,...]
                                        [--seconds=S] [--out=DIR] ...

    Measures round time, evaluation time and memory along one axis at a time, from the standard
    workload, each point in a process of its own. Writes scaling.json, scaling.txt, scaling.png and
    logs/.
"""


@dataclass(frozen=True)
class Axis:
    """One thing that grows.

    Attributes:
        name: its flag value, and the flag of its sizes.
        sizes: the standard ones.
        unit: what is counted.
        fixed: settings of all points beside the standard workload's.
        setting: what a size sets; "" for the number of clients.
    """

    name: str
    sizes: tuple[int, ...]
    unit: str
    fixed: dict[str, Any]
    setting: str = ""

    def settings(self, size: int) -> dict[str, Any]:
        """The settings of one point."""
        own = {"views": ",".join(VIEWS[:size])} if self.setting == "views" else {}
        own = own or {self.setting or "clients": size}
        return {"clients": 10_000} | self.fixed | own


AXES = (
    Axis("clients", (100, 1000, 10_000, 100_000), "clients, all in the cohort", {}),
    Axis(
        "population",
        (10_000, 100_000, 1_000_000),
        "clients, 10,000 of them in the cohort",
        {"cohort": 10_000, "eval_clients": 10_000, "private_state": "host"},
    ),
    Axis("cohort", (100, 1000, 10_000), "clients in the cohort, of 10,000", {}, "cohort"),
    Axis("items", (1000, 10_000, 100_000), "items, 1,000 clients", {"clients": 1000}, "items"),
    Axis("views", (1, 2, 3, 6), "views", {}, "views"),
    Axis("devices", (1, 2), "devices (CPU cores)", {}, "devices"),
)
_BY_NAME = {axis.name: axis for axis in AXES}


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "axes",
        ",".join(_BY_NAME),
        f"Axes to measure along, separated by commas, from {', '.join(_BY_NAME)}.",
        flag_values=into,
    )
    for axis in AXES:
        standard = ",".join(map(str, axis.sizes))
        flags.DEFINE_string(
            axis.name,
            standard,
            f"Sizes to measure, separated by commas: {axis.unit}.",
            flag_values=into,
        )
    shared.define_timing(into, "runs/benchmarks/scaling")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Measure, and report after every measurement."""
    wanted = shared.names("axes", values.axes, tuple(_BY_NAME))
    points = [
        (axis, size, axis.settings(size))
        for axis in (_BY_NAME[name] for name in wanted)
        for size in shared.sizes(axis.name, values[axis.name].value)
    ]
    for axis, size, settings in points:
        if axis.setting == "views" and size > len(VIEWS):
            raise UserError(f"--views={size}: expected at most {len(VIEWS)}")
        workload.config(**settings)
    out = values.out
    results = {"machine": machine.describe(), "seconds": values.seconds, "points": []}
    for axis, size, settings in points:
        job = Job("scaling", settings, REFERENCE, values.seconds)
        done = jobs.run(job, values.limit, out / "logs" / f"{axis.name}-{size}.log")
        point = {"axis": axis.name, "size": size, "settings": settings}
        point |= {"failure": done.reason} if isinstance(done, Failure) else done
        results["points"].append(point)
        print(_line(point), flush=True)
        files.write_json(out / "scaling.json", results)
    report.show(summary(results), out, "scaling.txt")
    plot(results["points"], out / "scaling.png")
    print(f"written to {out}: scaling.json, scaling.txt, scaling.png, logs/")


def _line(point: dict[str, Any]) -> str:
    where = f"{point['axis']} {point['size']:,}"
    if "failure" in point:
        return f"{where}: {point['failure']}"
    return f"{where}: a round takes {round_seconds(point):.3g} s"


def round_seconds(point: dict[str, Any]) -> float:
    """Wall seconds of the median round."""
    return float(np.median(point["round_seconds"]))


def slope(sizes: list[int], seconds: list[float]) -> float | None:
    """Of the least-squares line through the logarithms; None for less than two points."""
    if len(sizes) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def summary(results: dict[str, Any]) -> list[Table | str]:
    """A table for every axis, with its slopes."""
    heads = ("", "round s", "updates/s", "evaluation s", "peak GB", "client state GB", "compile s")
    parts: list[Table | str] = [machine.sentence(results["machine"])]
    for axis in AXES:
        points = [p for p in results["points"] if p["axis"] == axis.name]
        good = [p for p in points if "failure" not in p]
        if not points:
            continue
        table = report.table(axis.unit, heads, left=0)
        for point in good:
            table.add_row(*_cells(point))
        parts.append(table)
        parts += [f"{_line(p)}" for p in points if p not in good]
        if axis.name != "devices" and len(good) > 1:
            parts.append(_slopes(axis, good))
    return parts


def _cells(point: dict[str, Any]) -> list[str]:
    seconds = round_seconds(point)
    return [
        f"{point['size']:,}",
        f"{seconds:.4f}",
        f"{point['clients'] / seconds:,.0f}",
        f"{point['eval_seconds']:.4f}",
        f"{point['peak_bytes'] / 1e9:.2f}",
        f"{point['client_state_bytes'] / 1e9:.2f}",
        f"{point['compile_seconds']:.1f}",
    ]


def _slopes(axis: Axis, points: list[dict[str, Any]]) -> str:
    """Over all sizes, and over the larger ones, where what is the same for all sizes is small."""
    sizes = [p["size"] for p in points]
    spent = [round_seconds(p) for p in points]
    text = f"round time ~ {axis.name}^{slope(sizes, spent):.2f}"
    if len(points) > 2:
        text += f", without the smallest ^{slope(sizes[1:], spent[1:]):.2f}"
    return text


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw round and evaluation time along every axis."""
    good = [p for p in points if "failure" not in p]
    drawn = [axis for axis in AXES if any(p["axis"] == axis.name for p in good)]
    if not drawn:
        return
    panels = []
    for axis in drawn:
        mine = [p for p in good if p["axis"] == axis.name]
        sizes = [p["size"] for p in mine]
        spent = {"round": map(round_seconds, mine), "evaluation": (p["eval_seconds"] for p in mine)}
        lines = [
            Series(name, sizes, list(seconds), style=2 * k)
            for k, (name, seconds) in enumerate(spent.items())
        ]
        x = chart.Axis(axis.unit, log=True, marks=sizes)
        panels.append(Panel(x, chart.Axis("wall seconds", log=True), lines))
    drawing.write(Chart("Round and evaluation time along every axis.", panels), path)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
