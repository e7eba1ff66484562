"""What compilers say of a round on GPUs and TPUs: python -m benchmarks.accelerators"""

import itertools
from typing import Any

from absl import flags
from rich.table import Table

from benchmarks import flags as shared
from benchmarks import jobs, machine, report, targets, workload
from benchmarks.contenders.names import REFERENCE
from benchmarks.jobs import Failure, Job
from experiments import cli
from experiments.lists import distinct
from fedvlr_jax import files
from fedvlr_jax.errors import UserError

USAGE = """
    usage: python -m benchmarks.accelerators [--targets=h100:1,v5e:2x2,...] [--clients=N,...]
                                             [--items=N,...] [--chunk=N,...] [--out=DIR] ...

    Compiles a round and an evaluation of the standard workload for GPUs and TPUs, by their own
    compilers, which need no such device, and reports what they say of memory, exchanges and
    cycles. Where the machine has the device it runs and times the programs, too. Each target is
    compiled for in a process of its own. Writes accelerators.json, accelerators.txt and logs/.
"""
_TARGETS = "h100:1,h100:8,v5e:2x2,v5e:16x16,v6e:2x4"
_LISTS = ("clients", "items", "chunk")
_SETTINGS = [name for name in workload.SETTINGS if name not in _LISTS]
_SETTINGS += ["negative_sampling", "scoring", "precision"]
_WIDTH = 150  # characters of the table
# The table's columns: where in a program's record a number stands, its unit, and how it is shown.
_COLUMNS = {
    "target": ("target", None, "{}"),
    "program": ("program", None, "{}"),
    "clients": ("clients", 1, "{:,.0f}"),
    "items": ("items", 1, "{:,.0f}"),
    "chunk": ("chunk", 1, "{:.0f}"),
    "compile s": ("compile_seconds", 1, "{:.0f}"),
    "arguments": ("argument_bytes", 1e6, "{:,.1f}"),
    "temporaries": ("temporary_bytes", 1e6, "{:,.1f}"),
    "private": ("private_state_bytes", 1e6, "{:,.1f}"),
    "copies": ("private_state_copies", 1, "{:.0f}"),
    "exchanges": ("collectives", 1, "{:.0f}"),
    "cycles": ("cycles_per_client_update", 1, "{:,.0f}"),
    "unknown": ("gathers_and_scatters_without_estimate", 1, "{:,.0f}"),
    "ms": ("seconds", 1e-3, "{:,.1f}"),
}
_EXPLAINED = (
    "All numbers are of one device. arguments, temporaries, private states: MB. copies: operations "
    "that only move the private states. cycles: the compiler's estimates, each times how often it "
    "is run, over the device's clients: a lower bound, no measurement. unknown: gathers and "
    "scatters that are run without an estimate. ms: measured, where the machine has the device."
)


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    shared.define_workload(into, _SETTINGS)
    for name, standard, text in (
        (
            "targets",
            _TARGETS,
            "Devices to compile for, separated by commas: h100:COUNT, v4:AxBxC, v5e:AxB, "
            "v5p:AxBxC, v6e:AxB, or those of this machine: cpu:COUNT, gpu:COUNT, tpu:COUNT.",
        ),
        (
            "clients",
            "100000",
            "Numbers of clients, all of them in the cohort, separated by commas.",
        ),
        ("items", str(workload.STANDARD["items"]), "Numbers of items, separated by commas."),
        (
            "chunk",
            "",
            "Numbers of clients that one device trains at the same time, separated by commas. The "
            "default is the number that a run chooses by itself.",
        ),
    ):
        flags.DEFINE_string(name, standard, text, flag_values=into)
    shared.define_timing(into, "runs/benchmarks/accelerators")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Compile for every target, and report after each.

    Raises:
        UserError: a bad flag; a target that failed, or none that could be compiled for.
    """
    names = distinct("targets", values.targets, values.targets.split(","))
    wanted = [targets.parsed(name) for name in names]
    points = _points(values)
    out = values.out
    results: dict[str, Any] = {"machine": machine.describe()}
    results |= {"programs": [], "unavailable": {}, "failures": []}
    for target in wanted:
        if lacking := targets.missing(target):
            results["unavailable"][target.name] = lacking
            print(f"{target.name}: left out, {lacking}", flush=True)
        for settings in [] if lacking else points:
            _compile(target, settings, values, results)
        files.write_json(out / "accelerators.json", results)
    report.show(summary(results), out, "accelerators.txt", _WIDTH)
    print(f"written to {out}: accelerators.json, accelerators.txt, logs/")
    if results["failures"]:
        failed = ", ".join(dict.fromkeys(each["target"] for each in results["failures"]))
        raise UserError(f"--targets={values.targets}: {failed} failed, see {out / 'logs'}")
    if not results["programs"]:
        raise UserError(f"--targets={values.targets}: none has a compiler installed here")


def _points(values: flags.FlagValues) -> list[dict[str, Any]]:
    """The settings of the workload to compile at, all combinations of those in lists.

    Raises:
        UserError: a bad setting.
    """
    sizes = {name: shared.sizes(name, values[name].value) for name in _LISTS if values[name].value}
    fixed = shared.given_workload(values, _SETTINGS)
    points = [
        fixed | dict(zip(sizes, point, strict=True)) for point in itertools.product(*sizes.values())
    ]
    for settings in points:
        workload.config(**settings)
    return points


def _compile(
    target: targets.Target,
    settings: dict[str, Any],
    values: flags.FlagValues,
    results: dict[str, Any],
) -> None:
    """Compile for a target, and add to the results what comes of it."""
    sizes = [str(settings[name]) for name in _LISTS if name in settings]
    name = "-".join([target.name.replace(":", "-"), *sizes])
    job = Job("programs", settings, REFERENCE, values.seconds, target=target.name)
    log = values.out / "logs" / f"{name}.log"
    done = jobs.run(job, values.limit, log, targets.environment(target))
    if isinstance(done, Failure):
        results["failures"].append(
            {"target": target.name, "settings": settings, "failure": done.reason}
        )
        print(f"{target.name}: {done.reason}", flush=True)
    else:
        results["programs"] += done["programs"]
        spent = sum(program["compile_seconds"] for program in done["programs"])
        print(f"{target.name}: compiled in {spent:.0f} s", flush=True)


def summary(results: dict[str, Any]) -> list[Table | str]:
    """The table of all programs, and what was left out or failed."""
    table = report.table("what the compilers say", tuple(_COLUMNS), left=2)
    for program in results["programs"]:
        table.add_row(*(_cell(program[name], unit, form) for name, unit, form in _COLUMNS.values()))
    parts: list[Table | str] = [machine.sentence(results["machine"])]
    if results["programs"]:
        parts += [table, _EXPLAINED]
    parts += [f"{name}: left out, {text}" for name, text in results["unavailable"].items()]
    return parts + [f"{each['target']}: {each['failure']}" for each in results["failures"]]


def _cell(value: Any, unit: float | None, form: str) -> str:
    if value is None:
        return ""
    return form.format(value / unit if unit else value)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
