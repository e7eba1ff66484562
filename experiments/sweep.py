"""Study scaling, or anything else: python -m experiments.sweep --clients=100,1000,10000"""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from absl import flags
from rich.console import Console

from experiments import cli, live, reporting, scheduling
from experiments.reporting import facts
from fedvlr_jax import files, record
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import baseline, drawing, sections, seeds, sweep_page, sweep_results
from fedvlr_jax.report.baseline import Baseline
from fedvlr_jax.runs import declare, estimate
from fedvlr_jax.runs.grid import Grid
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Row
from fedvlr_jax.settings import FILE, FOLDER, NOT_NEGATIVE, SEEDS, setting

USAGE = """
    usage: python -m experiments.sweep [--sweep=SETTING=VALUES ...] [--seeds=N] [--config=FILE]
                                       [--clients=N,N,...] [--rounds=N] [--out=DIR] ...

    Trains a federation for every combination of values, and writes report.html (open it in a
    browser), results.csv (a row per run), scaling.png and every run's own folder into --out. VALUES
    are a list (clients=100,1000), or points between two numbers (log:1e-4:1e-1:4, lin:0:0.5:6).
    Every other flag holds for all runs. Run the same command again to go on after an interruption,
    or at the same time to share the work.
"""

_DEFAULTS = {"rounds": 30}
_DEFAULT_CLIENTS = "100,1000,10000"
# What a file may say beside settings and what is swept.
_IN_FILES = {"seeds": (int, SEEDS), "out": (Path, FOLDER)}


@dataclass(frozen=True)
class _Own:
    clients: str | None = setting(
        None,
        "Numbers of clients, separated by commas. It is short for --sweep=clients=...; the "
        f"default is {_DEFAULT_CLIENTS} if nothing else is swept and data are generated.",
    )
    sweep: list[str] = setting(
        (),
        "A setting and its values, like server_lr=log:1e-4:1e-1:4 or variant=fedvlr,mlp. "
        "Give the flag once for every setting.",
    )
    seeds: int | None = setting(
        None, "Number of seeds for every combination, counted from 0; default 1.", SEEDS
    )
    config: Path | None = setting(
        None, "YAML file with settings and `sweep`. Flags override it.", FILE
    )
    baseline: str | None = setting(
        None,
        "A swept setting and one of its values, like variant=mlp: every combination of settings is "
        "compared with the one that has this value instead, paired over users.",
    )
    dry_run: bool = setting(
        False, "Print the runs and an estimate of their memory and time, and train nothing."
    )
    max_memory: float = setting(
        0.0,
        "Refuse the sweep if a run would take more memory than this, in GB. 0 means no check.",
        NOT_NEGATIVE,
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and the sweep's own."""
    cli.define_settings(into, leaves(), without=("clients",), defaults=_DEFAULTS)
    cli.define(into, _Own, cli.Tracking, *scheduling.RUNS)
    cli.define_path(into, "out", "runs/sweep", "Folder of the sweep.")


def main(values: flags.FlagValues) -> None:
    """Do what is left of the sweep, and renew the table and the picture after every run."""
    runs, axes, out = declared(values)
    compared = None
    if values.baseline is not None:
        evaluated = max(config.schedule.eval_clients or 0 for config in runs.values())
        compared = baseline.read(values.baseline, axes, evaluated)
    wanted = {config.execution.devices for config in runs.values()}
    devices = wanted.pop() if len(wanted) == 1 else 0
    if values.dry_run:
        scheduling.take_share(devices)
        _print_estimates(runs)
        return
    if values.max_memory:
        estimate.refuse_what_cannot_fit(runs, values.max_memory)
    report = _Report(runs, axes, out, compared)
    with _display(runs, values.quiet) as display:
        rows = scheduling.execute(Grid(runs), out, values, display, report.renew, devices)
    table = sweep_results.to_targets(sweep_results.results(rows), runs, out)
    print(sweep_results.shown(table, axes))
    for sentence in (*sweep_results.remarks(table), *report.differences):
        print(sentence)
    for name, row in rows.items():
        if row.status == FAILED:
            print(f"failed: {name}: {row.content['reason']}")
    written = "report.html, results.csv, scaling.png, " + ("baseline.csv, " if compared else "")
    print(f"written to {out}: {written}runs/")


def declared(values: flags.FlagValues) -> tuple[dict[str, Config], declare.Axes, Path]:
    """The runs by name, what they differ in, and the folder.

    Raises:
        UserError: a bad setting, axis or file.
    """
    file = declare.Declared({}, {}, {})
    if values.config is not None:
        file = declare.read(values.config, _IN_FILES)
    given = cli.given_settings(values, leaves(), without=("clients",))
    axes = _axes(values)
    for name in axes:
        if name in given:
            raise UserError(f"--{name}={given[name]}: is swept as well, expected one of the two")
    # What stands on the command line comes before what stands in the file.
    settings = {k: v for k, v in file.settings.items() if k not in axes} | given
    axes = {k: v for k, v in file.axes.items() if k not in given} | axes
    seeds = values.seeds if values.seeds is not None else file.others.get("seeds")
    if seeds is not None:
        if "seed" in axes or "seed" in settings:
            raise UserError(f"--seeds={seeds}: seeds are given as well, expected one of the two")
        axes["seed"] = tuple(range(seeds))
    settings = _DEFAULTS | settings
    synthetic = settings.get("data", "synthetic") == "synthetic"
    if not set(axes) - {"seed"} and "clients" not in settings and synthetic:
        axes = declare.axes([f"clients={_DEFAULT_CLIENTS}"]) | axes
    axes.setdefault("seed", (settings.pop("seed", 0),))
    try:
        runs = declare.runs(settings, axes)
    except UserError as reason:
        raise file.placed(reason) from None
    out = values.out if values["out"].present else file.others.get("out") or values.out
    return runs, axes, out


def _axes(values: flags.FlagValues) -> declare.Axes:
    lines = list(values.sweep)
    if values.clients is not None:
        if values["data"].present and values.data != "synthetic":
            raise UserError(
                f"--clients={values.clients}: --data={values.data} brings its own clients"
            )
        lines.insert(0, f"clients={values.clients}")
    return declare.axes(lines)


def _print_estimates(runs: Mapping[str, Config]) -> None:
    """Print the runs with what they will take."""
    print("\n".join(runs))
    print(f"{len(runs)} runs; nothing is trained, as --dry_run says", flush=True)
    estimates = estimate.estimates(runs, cli.tell)
    table = pd.DataFrame(
        {
            "run": list(runs),
            "memory, GB": [f"{estimates[name].bytes / 1e9:.1f}" for name in runs],
            "time": [live.duration(estimates[name].seconds) for name in runs],
        }
    )
    print(table.to_string(index=False))
    total = sum(one.seconds for one in estimates.values())
    compiled = [one.compiling for one in estimates.values() if one.compiling]
    print(
        f"about {live.duration(total)} (hours:minutes:seconds or minutes:seconds) one after the "
        f"other on this machine, {live.duration(sum(compiled))} of them to compile "
        f"{len(compiled)} programs; most likely between {live.duration(total / estimate.ERROR)} "
        f"and {live.duration(total * estimate.ERROR)}, less where runs stop early or train together"
    )


def _display(
    runs: Mapping[str, Config], quiet: bool
) -> contextlib.AbstractContextManager[reporting.Nothing]:
    """What shows runs: a table that moves on a terminal, or plain lines."""
    if sys.stdout.isatty() and not quiet:
        return live.Board(runs, Console())
    return contextlib.nullcontext(reporting.Lines(runs))


class _Report:
    """What is written of a sweep: results.csv after every run, now and then a picture and a page.

    Attributes:
        differences: from the baseline, as sentences, once all runs have ended.
    """

    def __init__(
        self,
        runs: Mapping[str, Config],
        axes: declare.Axes,
        out: Path,
        compared: Baseline | None,
    ) -> None:
        self._runs, self._axes, self._out, self._baseline = runs, axes, out, compared
        self._seldom = scheduling.Seldom()
        self.differences: list[str] = []

    def renew(self, rows: Mapping[str, Row]) -> None:
        """Write what is known by now."""
        table = sweep_results.results(rows)
        table = sweep_results.to_targets(table, self._runs, self._out)
        files.write_table(self._out / "results.csv", table)
        whole = len(rows) == len(self._runs)
        if self._seldom.is_due(whole):
            table = sweep_page.prepared(table, self._runs, self._axes)
            if (table["status"] == FINISHED).any():
                chart, _ = sweep_page.over(table, self._axes)
                drawing.write(chart, self._out / "scaling.png")
            self._write_page(table, whole)

    def _write_page(self, table: pd.DataFrame, whole: bool) -> None:
        ended = table["status"].value_counts()
        precisions = dict.fromkeys(config.method.precision for config in self._runs.values())
        made = facts(
            "sweep",
            runs=f"{ended.get(FINISHED, 0)} finished, {ended.get(FAILED, 0)} failed, of "
            f"{len(self._runs)}",
            data=", ".join(dict.fromkeys(config.data.data for config in self._runs.values())),
            precision_of_products=", ".join(precisions),
            trained_on=sweep_results.machines(table),
        )
        parts = sweep_page.sections(table, self._runs, self._axes, self._out)
        if whole and self._baseline is not None:
            against, k = (self._axes, self._baseline), seeds.cutoff(table)
            compared = baseline.differences(table, *against, self._out / record.RUNS_FOLDER, k)
            files.write_table(self._out / "baseline.csv", compared)
            self.differences = baseline.sentences(compared, *against, k)
            parts.insert(1, baseline.section(compared, *against, k))
        page = sections.page(f"Sweep {self._out.name}", made, parts)
        files.write_text(self._out / "report.html", page)


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
