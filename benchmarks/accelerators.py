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
from fedvlr_jax import files
from fedvlr_jax.errors import UserError

USAGE = """
    usage: python -m benchmarks.accelerators [--targets=h100:1,v5e:2x2,...] [--clients=N,...]
                                             [--items=N,...] [--chunk=N,...] [--out=DIR] ...

    Compiles a round and an evaluation of the standard workload for GPUs and TPUs by their own
    compilers, which need no such device, each in a process of its own, and reports what they say
    of memory, exchanges and cycles. On a machine that has the device it runs and times the
    programs, too. Writes accelerators.json, accelerators.txt and logs/.
"""
_TARGETS = "h100:1,h100:8,v5e:2x2,v5e:16x16,v6e:2x4"


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    shared.define_workload(into, without=("items",))
    for name, standard, text in (
        (
            "targets",
            _TARGETS,
            "What to compile for, comma-separated: h100:COUNT, v4:AxBxC, v5e:AxB, v5p:AxBxC, "
            "v6e:AxB, or cpu:COUNT, gpu:COUNT, tpu:COUNT of this machine's devices.",
        ),
        ("clients", "100000", "Clients, all in the cohort; one number or several."),
        ("items", str(workload.STANDARD["items"]), "Items; one number or several."),
        ("chunk", "", "Clients of a device that train at a time; empty for the program's choice."),
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
    wanted = [targets.parsed(name) for name in values.targets.split(",")]
    sizes = {
        name: shared.sizes(name, values[name].value)
        for name in ("clients", "items", "chunk")
        if values[name].value
    }
    fixed = shared.given_workload(values, without=("items",))
    points = [
        fixed | dict(zip(sizes, point, strict=True)) for point in itertools.product(*sizes.values())
    ]
    for settings in points:
        workload.config(**settings)
    out = values.out
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "programs": [],
        "unavailable": {},
        "failures": [],
    }
    for target in wanted:
        if lacking := targets.missing(target):
            results["unavailable"][target.name] = lacking
            print(f"{target.name}: left out, {lacking}", flush=True)
            files.write_json(out / "accelerators.json", results)
            continue
        for settings in points:
            job = Job("programs", settings, REFERENCE, values.seconds, target=target.name)
            label = "-".join(
                [target.name.replace(":", "-"), *map(str, (settings[name] for name in sizes))]
            )
            log = out / "logs" / f"{label}.log"
            done = jobs.run(job, values.limit, log, targets.environment(target))
            if isinstance(done, Failure):
                failure = {"target": target.name, "settings": settings, "failure": done.reason}
                results["failures"].append(failure)
                print(f"{target.name}: {done.reason}", flush=True)
            else:
                results["programs"] += done["programs"]
                for program in done["programs"]:
                    print(_line(program), flush=True)
            files.write_json(out / "accelerators.json", results)
    report.show(summary(results), out, "accelerators.txt")
    print(f"written to {out}: accelerators.json, accelerators.txt, logs/")
    if results["failures"]:
        failed = ", ".join(dict.fromkeys(each["target"] for each in results["failures"]))
        raise UserError(f"--targets: {failed} failed, see {out / 'logs'}")
    if not results["programs"]:
        raise UserError(f"--targets={values.targets}: no compiler of these is installed here")


def _line(program: dict[str, Any]) -> str:
    return (
        f"{program['target']} {program['program']}: compiled in {program['compile_seconds']:.1f} s"
    )


def summary(results: dict[str, Any]) -> list[Table | str]:
    """The table of all programs, and what there is none of."""
    heads = (
        "target",
        "program",
        "clients",
        "items",
        "chunk",
        "arguments",
        "temporary",
        "private",
        "copies",
        "exchanges",
        "compile s",
        "cycles",
        "without",
        "seconds",
    )
    table = report.table("what the compilers say, MB of each device", heads, left=2)
    for p in results["programs"]:
        cycles = p["cycles_per_client_update"]
        table.add_row(
            p["target"],
            p["program"],
            f"{p['clients']:,}",
            f"{p['items']:,}",
            str(p["chunk"]),
            *(
                f"{p[name] / 1e6:,.0f}"
                for name in ("argument_bytes", "temporary_bytes", "private_state_bytes")
            ),
            str(p["private_state_copies"]),
            str(p["collectives"]),
            f"{p['compile_seconds']:.0f}",
            "" if cycles is None else f"{cycles:,.0f}",
            "" if cycles is None else str(len(p["operations_without_estimate"])),
            f"{p['seconds']:.4f}" if "seconds" in p else "",
        )
    parts: list[Table | str] = [machine.sentence(results["machine"]), table]
    parts += [f"{name}: left out, {text}" for name, text in results["unavailable"].items()]
    parts += [f"{each['target']}: {each['failure']}" for each in results["failures"]]
    return parts


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
