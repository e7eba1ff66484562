"""What the virtual clock costs, and how fast buffered steps are: python -m benchmarks.clocks"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import machine, report, workload
from experiments import cli
from fedvlr_jax import data, files
from fedvlr_jax.config import Config
from fedvlr_jax.settings import AT_LEAST_ONE, at_least
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.simulation import build

USAGE = """
    usage: python -m benchmarks.clocks [--clients=N] [--rounds=N] [--out=DIR]

    Times rounds of the standard workload without devices and with phones in turns, in one process,
    and then rounds of cohorts and steps of buffers of the same size. Writes clocks.json and
    clocks.txt.
"""
_WARMING = 2  # rounds that fill caches, and the places of the clients that train at a time


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    cli.define_number(into, "clients", 10_000, "Number of clients.", at_least(20))
    cli.define_number(into, "rounds", 20, "Number of timed rounds of each kind.", AT_LEAST_ONE)
    cli.define_path(into, "out", "runs/benchmarks/clocks", "Folder of the results.")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Measure and report."""
    found = {"machine": machine.describe()} | measure(values.clients, values.rounds)
    values.out.mkdir(parents=True, exist_ok=True)
    files.write_json(values.out / "clocks.json", found)
    report.show(summary(found), values.out, "clocks.txt")
    print(f"written to {values.out}: clocks.json, clocks.txt")


def summary(found: Mapping[str, Any]) -> list[Any]:
    """The table and the notes below it."""
    table = report.table(
        f"{found['clients']:,} clients, a cohort or buffer of {found['cohort']:,}",
        ("rounds", "seconds", "updates/s"),
    )
    for part in ("clock", "steps"):
        for name, row in found[part].items():
            table.add_row(name, f"{row['round_seconds']:.4f}", f"{row['updates_per_second']:,.0f}")
    ratios = [f"{name}: {x:.2f}" for name, x in found["buffer_to_cohort"].items()]
    return [
        machine.sentence(found["machine"]),
        table,
        f"the clock adds {100 * found['clock_overhead']:.1f} % to a round",
        f"updates a second beside a cohort of the buffer's size: {'; '.join(ratios)}",
    ]


def in_turns(configs: Mapping[str, Config], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of a round and client updates a second of each, medians, timed in turns."""
    trainers, found = {}, {}
    for name, config in configs.items():
        dataset = data.load(config)
        trainers[name] = OnDevice(build(config, dataset), [config.schedule.seed])
        trainers[name].compile()
        found[name] = []
    for number in range(rounds + _WARMING):
        for name, trainer in trainers.items():
            begun = time.perf_counter()
            outcome = trainer.round()
            seconds = time.perf_counter() - begun
            if number >= _WARMING:
                found[name].append((seconds, int(outcome.participation.by_length.sum())))
    return {
        name: {
            "round_seconds": statistics.median(seconds for seconds, _ in rows),
            "updates_per_second": statistics.median(n / seconds for seconds, n in rows),
        }
        for name, rows in found.items()
    }


def measure(clients: int, rounds: int) -> dict[str, Any]:
    """The clock beside none, and a buffer beside a cohort."""
    cohort, half = clients // 10, clients // 2
    phones = {"devices_profile": "phones"}
    clock = in_turns(
        {
            "all clients, no devices": workload.config(clients),
            "all clients, phones": workload.config(clients, **phones),
        },
        rounds,
    )
    steps = in_turns(
        {
            "a cohort": workload.config(clients, cohort=cohort, **phones),
            "buffer, twice as many train": workload.config(
                clients, cohort=2 * cohort, buffer=cohort, **phones
            ),
            "buffer, four times as many train": workload.config(
                clients, cohort=4 * cohort, buffer=cohort, **phones
            ),
            "half of all": workload.config(clients, cohort=half, **phones),
            "buffer of half of all, all train": workload.config(clients, buffer=half, **phones),
        },
        rounds,
    )
    without, with_clock = (row["round_seconds"] for row in clock.values())
    rate = {name: of["updates_per_second"] for name, of in steps.items()}
    return {
        "clients": clients,
        "cohort": cohort,
        "clock": clock,
        "clock_overhead": with_clock / without - 1,
        "steps": steps,
        "buffer_to_cohort": {
            name: of / rate["half of all" if "half" in name else "a cohort"]
            for name, of in rate.items()
            if name.startswith("buffer")
        },
    }


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
