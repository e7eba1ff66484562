"""Race ways to simulate the same clients: python -m benchmarks.throughput"""

from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from benchmarks import flags as shared
from benchmarks import jobs, machine, report, workload
from benchmarks.contenders import names
from benchmarks.contenders.names import REFERENCE, Entry
from benchmarks.jobs import Failure, Job
from benchmarks.stepping import Measurement
from experiments import cli
from fedvlr_jax import files
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import drawing
from fedvlr_jax.report.chart import Axis, Chart, Panel, Series

USAGE = """
    usage: python -m benchmarks.throughput [--clients=100,1000,10000] [--contenders=fedvlr_jax,vmap]
                                           [--seconds=S] [--out=DIR] ...

    Checks on a small world that all contenders train the same (their losses agree), then measures
    client updates a second, peak memory and compile time of each at every number of clients, each
    in a process of its own. Writes throughput.json, throughput.txt, throughput.png and logs/.
"""

CHECKED_CLIENTS = 20
_TOLERANCE = 1e-4  # of the losses, relative


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "clients", "100,1000,10000", "Numbers of clients, separated by commas.", flag_values=into
    )
    flags.DEFINE_string(
        "contenders",
        ",".join(names.BY_NAME),
        f"Contenders of the race, separated by commas, from {', '.join(names.BY_NAME)}.",
        flag_values=into,
    )
    shared.define_timing(into, "runs/benchmarks/throughput")
    shared.define_workload(into)


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Check, measure, and report after every measurement."""
    sizes = shared.sizes("clients", values.clients)
    wanted = shared.names("contenders", values.contenders, tuple(names.BY_NAME))
    settings = shared.given_workload(values)
    for clients in sizes:
        workload.config(clients, **settings)
    out = values.out
    results = {
        "machine": machine.describe(),
        "settings": workload.config(sizes[-1], **settings).flat() | {"clients": sizes},
        "seconds": values.seconds,
        "notes": {name: names.BY_NAME[name].note for name in wanted},
        "left_out": {},
        "losses": {},
        "points": [],
    }
    present = _installed([names.BY_NAME[name] for name in wanted], results["left_out"])
    present = _agreeing(present, settings, values.limit, out, results)
    for clients in sizes:
        for entry in present:
            if entry.most_clients and clients > entry.most_clients:
                continue
            job = Job("throughput", {"clients": clients, **settings}, entry.name, values.seconds)
            point = measured(job, entry, values.limit, out / "logs")
            results["points"].append(point)
            print(_line(point), flush=True)
            files.write_json(out / "throughput.json", results)
    report.show(summary(results), out, "throughput.txt")
    plot(results["points"], out / "throughput.png")
    print(f"written to {out}: throughput.json, throughput.txt, throughput.png, logs/")


def _installed(entries: list[Entry], left_out: dict[str, str]) -> list[Entry]:
    for entry in entries:
        if entry.missing:
            left_out[entry.name] = (
                f"{', '.join(entry.missing)} not installed: pip install '.[benchmarks]'"
            )
            print(f"{entry.name}: left out, {left_out[entry.name]}", flush=True)
    return [entry for entry in entries if not entry.missing]


def _agreeing(
    entries: list[Entry], settings: dict[str, Any], limit: float, out: Path, results: dict[str, Any]
) -> list[Entry]:
    """The contenders that could train a small world, all with the same losses."""
    settings = {"clients": CHECKED_CLIENTS, **settings}
    for entry in entries:
        job = Job("losses", settings, entry.name, devices=entry.devices)
        done = jobs.run(job, limit, out / "logs" / f"{entry.name}-check.log")
        if isinstance(done, Failure):
            results["left_out"][entry.name] = f"failed on a small world: {done.reason}"
            print(f"{entry.name}: left out, {results['left_out'][entry.name]}", flush=True)
        else:
            results["losses"][entry.name] = done["losses"]
    check_losses(results["losses"])
    print(f"checked: {', '.join(results['losses'])} have the same losses", flush=True)
    return [entry for entry in entries if entry.name in results["losses"]]


def check_losses(losses: dict[str, list[float]]) -> None:
    """Refuse to race contenders that do not train the same.

    Raises:
        UserError: losses differ by more than a relative 1e-4, or nobody is left.
    """
    if not losses:
        raise UserError("no contender could train a small world; see logs/ in --out")
    first, *others = losses
    for name in others:
        for mine, theirs in zip(losses[first], losses[name], strict=True):
            if not abs(mine - theirs) <= _TOLERANCE * abs(mine):
                raise UserError(
                    f"{name} does not train what {first} trains: its first losses are "
                    f"{losses[name]}, expected {losses[first]}; nothing was timed"
                )


def measured(job: Job, entry: Entry, limit: float, logs: Path) -> dict[str, Any]:
    """One point: who, at how many clients, and the measurement or why there is none."""
    clients = job.settings["clients"]
    job = Job(job.task, job.settings, entry.name, job.seconds, entry.devices)
    done = jobs.run(job, limit, logs / f"{entry.name}-{clients}.log")
    who = {"contender": entry.name, "clients": clients}
    if isinstance(done, Failure):
        return who | {"failure": done.reason}
    rate = Measurement(**done).updates_per_second()
    return who | done | {"updates_per_second": rate}


def _line(point: dict[str, Any]) -> str:
    found = point.get("failure") or f"{point['updates_per_second']:,.1f} client updates a second"
    return f"{point['contender']}, {point['clients']:,} clients: {found}"


def summary(results: dict[str, Any]) -> list[Table | str]:
    """The table and the notes below it."""
    heads = ("contender", "updates/s", "slowest to fastest", "x slower", "peak GB", "compile s")
    parts: list[Table | str] = [machine.sentence(results["machine"])]
    points = results["points"]
    for clients in sorted({point["clients"] for point in points}):
        table = report.table(f"{clients:,} clients", (*heads, "rounds x clients timed"))
        here = [point for point in points if point["clients"] == clients]
        reference = next(
            (p["updates_per_second"] for p in here if p["contender"] == REFERENCE and _whole(p)),
            None,
        )
        for point in here:
            table.add_row(*_cells(point, reference))
        parts.append(table)
    failures = [
        f"{p['contender']}, {p['clients']:,} clients: {p['failure']}"
        for p in points
        if not _whole(p)
    ]
    left_out = [f"{name}: left out, {why}" for name, why in results["left_out"].items()]
    notes = [f"{name}: {note}" for name, note in results["notes"].items()]
    return [*parts, *failures, *left_out, *notes]


def _whole(point: dict[str, Any]) -> bool:
    return "failure" not in point


def _cells(point: dict[str, Any], reference: float | None) -> list[str]:
    if not _whole(point):
        return [point["contender"], "failed", *["--"] * 5]
    spent, timed, rate = point["round_seconds"], point["clients_timed"], point["updates_per_second"]
    return [
        point["contender"],
        f"{rate:,.0f}",
        f"{timed / max(spent):,.0f} to {timed / min(spent):,.0f}",
        f"{reference / rate:,.1f}" if reference else "--",
        f"{point['peak_bytes'] / 1e9:.2f}",
        f"{point['compile_seconds']:.1f}",
        f"{len(spent)} x {timed:,}",
    ]


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw client updates a second against the number of clients, a line for every contender."""
    drawn = []
    for style, name in enumerate(names.BY_NAME):
        mine = [p for p in points if p["contender"] == name and _whole(p)]
        if mine:
            low, high = (
                [p["clients_timed"] / of(p["round_seconds"]) for p in mine] for of in (max, min)
            )
            y = [p["updates_per_second"] for p in mine]
            drawn.append(Series(name, [p["clients"] for p in mine], y, (low, high), style))
    marks = sorted({p["clients"] for p in points})
    x = Axis("clients, all of them in the cohort", log=True, marks=marks)
    y = Axis("client updates per second\n(median; slowest to fastest round)", log=True)
    told = "Client updates a second over the number of clients, a line for every contender."
    drawing.write(Chart(told, [Panel(x, y, drawn)], size=(8.0, 4.8)), path)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
