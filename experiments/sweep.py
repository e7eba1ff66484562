"""Study scaling, or anything else: python -m experiments.sweep --clients=100,1000,10000"""

import contextlib
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from absl import flags
from rich.console import Console

from experiments import cli, live, reporting, scheduling
from experiments.reporting import Display, facts
from fedvlr_jax import files, record
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import baseline, drawing, sections, sweep_page, sweep_results
from fedvlr_jax.report.baseline import Baseline
from fedvlr_jax.runs import declare, estimate
from fedvlr_jax.runs.grid import Grid
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Row
from fedvlr_jax.settings import FILE, FOLDER, NOT_NEGATIVE, SEEDS

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
_SECONDS_BETWEEN_REPORTS = 60.0
# What a file may say beside settings and what is swept.
_IN_FILES = {"seeds": (int, SEEDS), "out": (Path, FOLDER)}


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and the sweep's own."""
    cli.define_settings(into, leaves(), without=("clients",))
    for name, value in _DEFAULTS.items():
        into.set_default(name, value)
    flags.DEFINE_string(
        "clients",
        None,
        "Numbers of clients, separated by commas. It is short for --sweep=clients=...; the "
        f"default is {_DEFAULT_CLIENTS} if nothing else is swept and data are generated.",
        flag_values=into,
    )
    flags.DEFINE_multi_string(
        "sweep",
        [],
        "A setting and its values, like server_lr=log:1e-4:1e-1:4 or variant=fedvlr,mlp. "
        "Give the flag once for every setting.",
        flag_values=into,
    )
    cli.define_number(
        into,
        "seeds",
        None,
        "Number of seeds for every combination, counted from 0; default 1.",
        SEEDS,
    )
    cli.define_path(
        into, "config", None, "YAML file with settings and `sweep`. Flags override it.", FILE
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "A swept setting and one of its values, like variant=mlp: every combination of settings is "
        "compared with the one that has this value instead, paired over users.",
        flag_values=into,
    )
    flags.DEFINE_boolean(
        "dry_run",
        False,
        "Print the runs and an estimate of their memory and time, and train nothing.",
        flag_values=into,
    )
    cli.define_number(
        into,
        "max_memory",
        0.0,
        "Refuse the sweep if a run would take more memory than this, in GB. 0 means no check.",
        NOT_NEGATIVE,
        float,
    )
    scheduling.define_flags(into)
    cli.define_path(into, "out", "runs/sweep", "Folder of the sweep.")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


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
        _foretell(runs)
        return
    if values.max_memory:
        estimate.refuse_what_cannot_fit(runs, values.max_memory)
    with contextlib.ExitStack() as display:
        told = _Told(runs, axes, out, _display(runs, values.quiet, display), compared)
        rows = scheduling.execute(Grid(runs), out, values, told, devices)
    table = sweep_results.results(rows)
    print(sweep_results.shown(table, axes))
    for sentence in (*sweep_results.remarks(table), *told.compared):
        print(sentence)
    failed = [name for name, row in rows.items() if row.status == FAILED]
    for name in failed:
        print(f"failed: {name}: {rows[name].content['reason']}")
    made = "report.html, results.csv, scaling.png, " + ("baseline.csv, " if compared else "")
    print(f"written to {out}: {made}runs/")


def _foretell(runs: Mapping[str, Config]) -> None:
    """Print the runs with what they will take."""
    print("\n".join(runs))
    print(f"{len(runs)} runs; nothing is trained, as --dry_run says", flush=True)
    found = estimate.estimates(runs, cli.tell)
    table = pd.DataFrame(
        {
            "run": list(runs),
            "memory, GB": [f"{found[name].bytes / 1e9:.1f}" for name in runs],
            "time": [live.duration(found[name].seconds) for name in runs],
        }
    )
    print(table.to_string(index=False))
    total = sum(one.seconds for one in found.values())
    compiled = [one.compiling for one in found.values() if one.compiling]
    print(
        f"about {live.duration(total)} (hours:minutes:seconds or minutes:seconds) one after the "
        f"other on this machine, {live.duration(sum(compiled))} of them to compile "
        f"{len(compiled)} programs; most likely between {live.duration(total / estimate.ERROR)} "
        f"and {live.duration(total * estimate.ERROR)}, less where runs stop early or train together"
    )


def _display(runs: Mapping[str, Config], quiet: bool, shown: contextlib.ExitStack) -> Display:
    """Where to tell how runs go on: nowhere, a table that moves on a terminal, or plain lines."""
    if quiet:
        return reporting.Nothing()
    if sys.stdout.isatty():
        return shown.enter_context(live.Board(runs, Console()))
    return reporting.Lines(runs)


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


class _Told(scheduling.Shown):
    """Shows where a sweep stands, and keeps its table, picture and report up to date."""

    def __init__(
        self,
        runs: Mapping[str, Config],
        axes: declare.Axes,
        out: Path,
        display: Display,
        compared: Baseline | None,
    ) -> None:
        super().__init__(display, out)
        self._runs, self._axes = runs, axes
        self._baseline = compared
        self.compared: list[str] = []  # differences from the baseline, as sentences
        self._reported = -math.inf  # when, of time.monotonic

    def known(self, rows: Mapping[str, Row]) -> None:
        """Write results.csv anew, and now and then the picture and the page."""
        super().known(rows)
        table = sweep_results.results(rows)
        files.write_table(self.out / "results.csv", table)
        # To draw takes as long as a small run: seldom while there are runs to come.
        whole = len(rows) == len(self._runs)
        if whole or time.monotonic() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = time.monotonic()
            table = sweep_page.prepared(table, self._runs, self._axes)
            if (table["status"] == FINISHED).any():
                chart, _ = sweep_page.over(table, self._axes)
                drawing.write(chart, self.out / "scaling.png")
            self._report(table, whole)

    def _report(self, table: pd.DataFrame, whole: bool) -> None:
        ended = table["status"].value_counts()
        precisions = dict.fromkeys(config.method.precision for config in self._runs.values())
        told = facts(
            "sweep",
            runs=f"{ended.get(FINISHED, 0)} finished, {ended.get(FAILED, 0)} failed, of "
            f"{len(self._runs)}",
            data=", ".join(dict.fromkeys(config.data.data for config in self._runs.values())),
            precision_of_products=", ".join(precisions),
            trained_on=sweep_results.machines(table),
        )
        parts = sweep_page.sections(table, self._runs, self._axes, self.out)
        if whole and self._baseline is not None:
            found = baseline.differences(
                table, self._axes, self._baseline, self.out / record.RUNS_FOLDER
            )
            files.write_table(self.out / "baseline.csv", found)
            self.compared = baseline.sentences(found, self._axes, self._baseline)
            parts.insert(1, baseline.section(found, self._axes, self._baseline))
        page = sections.page(f"Sweep {self.out.name}", told, parts)
        files.write_text(self.out / "report.html", page)


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
