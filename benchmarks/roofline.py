"""What bounds a round on this machine: python -m benchmarks.roofline"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from benchmarks import flags as shared
from benchmarks import jobs, machine, report, workload
from benchmarks.contenders.names import REFERENCE
from benchmarks.jobs import Failure, Job
from benchmarks.stepping import Measurement
from experiments import cli
from fedvlr_jax import Config, files
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import drawing
from fedvlr_jax.settings import AT_LEAST_ONE
from fedvlr_jax.simulation.mesh import make_mesh, split

USAGE = """
    usage: python -m benchmarks.roofline [--clients=10000] [--seconds=S] [--out=DIR]

    Measures how fast this machine's devices multiply matrices and copy memory, counts what a
    client's round needs of both, and draws the roofline with rounds that were measured. Writes
    roofline.json, roofline.txt, roofline.png and logs/.
"""

# Bytes of an array that a device copies: in a core's cache, and far beyond every cache.
_CACHED, _MEMORY = 1 << 18, 1 << 28
_SIDE = 1024  # of the square matrices that are multiplied
_POINTS = {
    "W": {},
    "W, 1 epoch": {"local_epochs": 1},
    "W, 16 negatives": {"negatives": 16},
    "W, d = 16": {"dim": 16},
}


@dataclass(frozen=True)
class Needs:
    """What one client's round takes, counted from the method.

    Attributes:
        flops: additions and multiplications.
        cache_bytes: view rows read, and gradient rows read and written, in tables that stay in a
            cache.
        memory_bytes: private state read and written.
    """

    flops: float
    cache_bytes: float
    memory_bytes: float


def needs(config: Config) -> Needs:
    """Of a client with `history_length` train items.

    In every epoch each sample is scored (2 V d operations), adds to the gradient of the query
    (2 V d) and gets a gradient row of its own (V d); the router's first layer, V d x d, is applied
    and differentiated on both sides (6 V d d). METHOD's identity section has the formulas.
    """
    method, history = config.method, config.data.history_length
    n_views = len(method.asked_views or method.modalities)
    row = n_views * method.dim
    samples = method.local_epochs * history * (1 + method.negatives)
    router = (row + 1) * method.dim + (method.dim + 1) * n_views
    return Needs(
        flops=5 * samples * row + method.local_epochs * 6 * row * method.dim,
        cache_bytes=3 * 4 * samples * row,
        memory_bytes=2 * 4 * (router + method.dim + 1),
    )


def peaks(mesh: Mesh) -> dict[str, float]:
    """Operations and bytes a second of all devices together, the best of several tries."""
    n = mesh.devices.size
    square = split(mesh, (_SIDE, _SIDE), lambda _: np.full((_SIDE, _SIDE), 1e-3, np.float32))
    found = {"flops": 2 * n * _SIDE**3 / _best(mesh, lambda x: x @ x, square)}
    for name, size in (("cache", _CACHED), ("memory", _MEMORY)):
        repeats = _MEMORY // size
        x = split(mesh, (size // 4,), lambda _, size=size: np.ones(size // 4, np.float32))

        def copies(x: jax.Array, repeats: int = repeats) -> jax.Array:
            return jax.lax.fori_loop(0, repeats, lambda _, y: y + 1, x)

        found[name] = 2 * n * size * repeats / _best(mesh, copies, x)
    return found


def _best(mesh: Mesh, work: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Wall seconds of `work` on every device's block."""
    spec = jax.sharding.PartitionSpec(mesh.axis_names[0])
    run = jax.jit(jax.shard_map(work, mesh=mesh, in_specs=spec, out_specs=spec))
    spent = []
    for _ in range(6):
        begun = time.perf_counter()
        jax.block_until_ready(run(x))
        spent.append(time.perf_counter() - begun)
    return min(spent[1:])


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    cli.define_number(
        into, "clients", 10_000, "Number of clients, all of them in the cohort.", AT_LEAST_ONE
    )
    shared.define_timing(into, "runs/benchmarks/roofline")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Measure peaks and rounds, write the table and the picture."""
    out = values.out
    results: dict[str, Any] = {"machine": machine.describe(), "points": []}
    for name, settings in _POINTS.items():
        settings = {"clients": values.clients} | settings
        done = jobs.run(
            Job("throughput", settings, REFERENCE, values.seconds),
            values.limit,
            out / "logs" / f"{name.replace(' ', '-').replace(',', '')}.log",
        )
        if isinstance(done, Failure):
            raise UserError(f"{name}: {done.reason}")
        rate = Measurement(**done).updates_per_second()
        wanted = needs(workload.config(**settings))
        results["points"].append({"name": name, "rate": rate} | vars(wanted))
    results["peaks"] = peaks(make_mesh(0))
    files.write_json(out / "roofline.json", results)
    report.show(summary(results), out, "roofline.txt")
    plot(results, out / "roofline.png")
    print(f"written to {out}: roofline.json, roofline.txt, roofline.png, logs/")


def summary(results: dict[str, Any]) -> list[Any]:
    """Peaks, and for every point the share of each that it uses."""
    peak = results["peaks"]
    table = report.table(
        "rounds, and the share of each peak that they use",
        ("", "updates/s", "operations", "cache", "memory", "MFLOP", "kB in cache", "kB of memory"),
    )
    for p in results["points"]:
        table.add_row(
            p["name"],
            f"{p['rate']:,.0f}",
            f"{p['rate'] * p['flops'] / peak['flops']:.0%}",
            f"{p['rate'] * p['cache_bytes'] / peak['cache']:.0%}",
            f"{p['rate'] * p['memory_bytes'] / peak['memory']:.0%}",
            f"{p['flops'] / 1e6:.2f}",
            f"{p['cache_bytes'] / 1e3:,.0f}",
            f"{p['memory_bytes'] / 1e3:,.0f}",
        )
    return [
        machine.sentence(results["machine"]),
        f"all devices together: {peak['flops'] / 1e9:,.0f} GFLOP/s in float32 matrix products, "
        f"{peak['cache'] / 1e9:,.0f} GB/s in cache, {peak['memory'] / 1e9:,.0f} GB/s of memory",
        table,
    ]


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw operations a second against operations a byte, for cache and for memory."""
    figure = drawing.empty(8.0, 4.8)
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log")
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    peak = results["peaks"]
    intensity = np.logspace(-1, 3, 200)
    for number, (name, text) in enumerate((("cache", "cache"), ("memory", "memory"))):
        roof = np.minimum(peak["flops"], intensity * peak[name]) / 1e9
        colour = drawing.style(number)["color"]
        axis.plot(intensity, roof, color=colour, label=f"roof of the {text}")
        for k, p in enumerate(results["points"]):
            marker = drawing.style(k)["marker"]
            x, y = p["flops"] / p[f"{name}_bytes"], p["rate"] * p["flops"] / 1e9
            axis.plot([x], [y], color=colour, marker=marker, linestyle="")
    for k, p in enumerate(results["points"]):
        style = {"color": "#000000", "marker": drawing.style(k)["marker"], "linestyle": ""}
        axis.plot([], [], label=p["name"], **style)
    axis.set_xlabel("operations per byte moved")
    axis.set_ylabel("GFLOP/s")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    drawing.save(figure, path)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
