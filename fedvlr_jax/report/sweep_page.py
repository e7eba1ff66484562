"""What a sweep's report says, section by section, and its picture."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import record
from fedvlr_jax.analysis.statistics import slope
from fedvlr_jax.config import Config, defaults_beside, leaves
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.report import baseline, seeds
from fedvlr_jax.report.chart import GREY, Axis, Chart, Panel, Series, stacked
from fedvlr_jax.report.sections import Section
from fedvlr_jax.report.sweep_results import COMPILATION, MEMORY, of_programs, remarks
from fedvlr_jax.runs.declare import Axes
from fedvlr_jax.runs.ledger import FAILED, FINISHED
from fedvlr_jax.settings import setting_type

# Of a metric's name its K is filled in where a sweep is known (`seeds.cutoff`).
_SCORE, _HITS = "test/warm/ndcg@{k}", "test/warm/hr@{k}"
_POPULARITY = "popularity/test/warm/ndcg@{k}"
_HEADLINE = {
    _SCORE: "warm NDCG@{k}, %",
    _HITS: "warm HR@{k}, %",
    _POPULARITY: "popularity's NDCG@{k}, %",
    "best_round": "best round",
    "timing/round_seconds_median": "round, s",
    "timing/client_rounds_per_second": "updates/s",
    "memory/peak_rss_gb": "peak memory, GB",
}
_COSTS = {
    "communication/download_kb": "down per client that came and round, kB",
    "communication/upload_kb": "up per client that came and round, kB",
    "parameters/server": "server's parameters",
    "parameters/private_per_client": "a client's parameters",
    "memory/client_state_mb": "all clients' parameters, MB",
    "memory/peak_rss_gb": "peak memory, GB",
    COMPILATION: "compilation of the program, once, s",
    "timing/total_seconds": "whole run, s",
}
_HOURS = "to_target/simulated_hours"
_TO_TARGET = {
    "to_target/goal": "target, %",
    "to_target/reached_percent": "runs that got there, %",
    "to_target/round": "rounds",
    "to_target/client_updates": "client updates",
    "to_target/download_mb": "down, MB",
    "to_target/upload_mb": "up, MB",
    "to_target/seconds": "seconds",
    _HOURS: "hours on clients' devices",
    "to_target/spent/round": "rounds spent in all",
}
# Shown over what is swept; whether by equal factors, as what grows with a power of it is.
_DRAWN = {
    "timing/round_seconds_median": (Axis("median round time (s)", log=True), "time of a round"),
    "timing/client_rounds_per_second": (Axis("client updates per second", log=True), "throughput"),
    "memory/peak_rss_gb": (Axis("peak memory (GB)", zero=True), "peak memory"),
}
_UNITS = {
    "to_target/reached_percent": ("to_target/reached", 100),
    "to_target/download_mb": ("to_target/download_bytes", 1e-6),
    "to_target/upload_mb": ("to_target/upload_bytes", 1e-6),
    _HOURS: ("to_target/simulated_seconds", 1 / 3600),
    "memory/peak_rss_gb": (MEMORY, 1e-9),
    "memory/client_state_mb": ("memory/client_state_bytes", 1e-6),
    "communication/download_kb": ("communication/download_bytes_per_client_round", 1e-3),
    "communication/upload_kb": ("communication/upload_bytes_per_client_round", 1e-3),
}


def prepared(table: pd.DataFrame, configs: Mapping[str, Config], axes: Axes) -> pd.DataFrame:
    """The table of `sweep_results` in the order of the axes, with what is shown in its units."""
    table = of_programs(seeds.in_order(table, axes), configs)
    units = {n: table[c].astype(float) * factor for n, (c, factor) in _UNITS.items() if c in table}
    return table.assign(**units)


def sections(
    table: pd.DataFrame, configs: Mapping[str, Config], axes: Axes, out: Path
) -> list[Section]:
    """The report's sections, of a `prepared` table and a sweep's folder."""
    parts = [_headline(table, axes), _to_target(table, axes, configs), _over(table, axes)]
    parts += [_curves(table, axes, out)]
    parts += [_costs(table, axes), _reliance(table, axes), _failed(table)]
    parts += [_settings(configs, axes), _commands(table, configs, out)]
    return [section for section in parts if section is not None]


def command(given: Mapping[str, Any], out: Path | None = None) -> str:
    """The command that trains a run of these settings, in a folder."""
    flags = [f"--{name}={value}" for name, value in given.items()]
    if out is not None:
        flags.append(f"--out={out}")
    return shlex.join(["python", "-m", "experiments.train", *flags])


def _headline(table: pd.DataFrame, axes: Axes) -> Section:
    text = (
        "Test metrics in percent of the round that was best on validation, over warm clients: "
        "those whose test item at least one client has among its train items. Popularity ranks "
        "items by how many clients have them. Updates a second count the clients that trained; a "
        "round's seconds are the median over rounds. Intervals are of the mean over seeds, by "
        "Student's t; of two seeds, their range."
    )
    for sentence in remarks(table):
        text += f" {sentence[0].upper()}{sentence[1:]}."
    columns = _at(seeds.cutoff(table), _HEADLINE)
    return Section(
        "Results",
        text,
        seeds.combined(table, axes, columns),
        best=tuple(list(columns.values())[:2]),
        among=tuple(name for name in seeds.varied(axes) if name in baseline.OF_POPULATIONS),
    )


def _at(k: int, columns: Mapping[str, str]) -> dict[str, str]:
    """Columns and their heads with the metrics' K."""
    return {column.format(k=k): head.format(k=k) for column, head in columns.items()}


def _to_target(table: pd.DataFrame, axes: Axes, configs: Mapping[str, Config]) -> Section | None:
    """What it took to get to the target, where there is one."""
    if "to_target/reached" not in table:
        return None
    wanted = dict.fromkeys(config.schedule.target for config in configs.values())
    text = (
        f"What it took until the validation score was {', '.join(filter(None, wanted))}, by the "
        "first evaluation that had it; rounds in between were not looked at. Client updates count "
        "clients, round by round, and bytes are those of all of them. Seconds are those of rounds, "
        "without compilation and evaluation. Where a run did not get there, its cost is not known "
        "but for being more than what was spent, so a combination with such runs has no mean."
    )
    columns = dict(_TO_TARGET)
    if _HOURS not in table or table[_HOURS].isna().all():
        del columns[_HOURS]  # clients have no devices
    else:
        text += " Hours are simulated ones (--devices_profile)."
    return Section("To the target", text, seeds.combined(table, axes, columns))


def _over(table: pd.DataFrame, axes: Axes) -> Section | None:
    names = seeds.varied(axes)
    if not names or not (table["status"] == FINISHED).any():
        return None
    drawn, slopes = over(table, axes)
    text = "Bars are 95 % intervals over seeds; of two seeds, their range."
    x = seeds.along(axes)
    if slopes:
        text += (
            f" Dashed lines are powers of {x}, fitted to all runs by least squares on logarithms, "
            "with the 95 % interval of the power: 1 is proportional, 0 does not grow."
        )
    title = f"Over {x}" if x else f"By {', '.join(names)}"
    return Section(title, text, pd.DataFrame(slopes) if slopes else None, (drawn,))


def over(table: pd.DataFrame, axes: Axes) -> tuple[Chart, list[dict[str, Any]]]:
    """Time, throughput, memory and accuracy over what is swept.

    Over the first numbers that are (`seeds.along`), with a line for every combination of the
    others and the powers that time and memory grow with; or with a bar for every combination. The
    table is `prepared` and has a run that has finished.
    """
    x, names = seeds.along(axes), seeds.varied(axes)
    others = [name for name in names if name != x]
    k = seeds.cutoff(table)
    score, popularity = _SCORE.format(k=k), _POPULARITY.format(k=k)
    accuracy = Axis(f"test NDCG@{k}, warm (%)", zero=True), "accuracy"
    shown = _DRAWN | {score: accuracy}
    means = seeds.combined(table, axes, {column: column for column in (*shown, popularity)})
    finished = table[table["status"] == FINISHED]
    panels, slopes = [], []
    for column, (y, title) in shown.items():
        if x is None or not (finished[column] > 0).all():
            y = Axis(y.name, zero=True)
        if x is None:
            places = seeds.labels(means, names)
            across, rows = Axis(", ".join(names), labels=places), means.assign(_name=places)
            look = {"name": title, "kind": "bars", "legend": False}
            drawn = seeds.series(rows, column, "_name", places=places, **look)
            popular = pd.Series(means[popularity].tolist()).dropna()
        else:
            counted = setting_type(leaves()[x]) is int and min(axes[x]) > 0
            across = seeds.axis_of(x, axes[x], counted)
            drawn = seeds.series(means, column, x, others, name="{}" if others else title)
            if counted and column != score:
                drawn, powers = _fitted(drawn, finished, (x, column, title), others, y.log)
                slopes += powers
            popular = finished.groupby(x)[popularity].mean().dropna()
        if column == score and len(popular):
            line = popular.index.tolist(), popular.tolist()
            drawn.append(Series("popularity", *line, style=GREY, dash=1))
        panels.append(Panel(across, y, drawn))
    summary = f"Time, throughput, memory and accuracy over {x or ', '.join(names) or 'all runs'}."
    return Chart(summary, panels, across=2, size=(4.5, 3.25)), slopes


def _fitted(
    lines: Sequence[Series],
    runs: pd.DataFrame,
    drawn: tuple[str, str, str],
    others: Sequence[str],
    log: bool,
) -> tuple[list[Series], list[dict[str, Any]]]:
    """Lines named with the powers of x that they grow with, and these as rows of a table.

    Args:
        lines: of the column over x, one for each combination of `others`.
        runs: that have finished.
        drawn: x, the column, and what it is.
        others: the settings that tell lines apart.
        log: whether the powers are drawn, too.
    """
    x, column, title = drawn
    by_name, series, rows = {line.name: line for line in lines}, [], []
    for values, mine in seeds.grouped(runs, others):
        line = by_name.get(seeds.label(values, others) or title)
        if line is None:
            continue
        known = mine[[x, column]].astype(float).dropna()
        fit = slope(known[x].to_numpy(), known[column].to_numpy())
        if fit is not None:
            power, half, constant = fit
            ends = None if np.isnan(half) else (power - half, power + half)
            rows.append({"what": title} | values | seeds.with_ends(f"power of {x}", power, ends))
            line = dataclasses.replace(line, name=f"{line.name} (power {power:.2f})")
            if log:
                # Rounded, as limits that differ in their last bit alone cannot be drawn.
                y = [float(f"{np.exp(constant) * float(x) ** power:.6g}") for x in line.x]
                series.append(Series(line.name, line.x, y, None, line.style, dash=1, legend=False))
        series.append(line)
    return series, rows


def _curves(table: pd.DataFrame, axes: Axes, out: Path) -> Section | None:
    """Validation accuracy and loss over rounds, read from the runs' folders."""
    names = seeds.varied(axes)
    lines = [
        pd.DataFrame(measured).assign(run=run)
        for run in table.loc[table["status"] == FINISHED, "run"]
        if (measured := record.evaluations(out / record.RUNS_FOLDER / run))
    ]
    if not lines:
        return None
    rounds = pd.concat(lines).merge(table[["run", "seed", *names]], on="run")
    k = seeds.cutoff(table)
    drawn = {
        f"valid/warm/ndcg@{k}": Axis(f"valid NDCG@{k}, warm (%)", zero=True),
        "train_loss": Axis("training loss (nats per sample)"),
    }
    panels = [
        Panel(Axis("round", whole=True), axis, seeds.curves(rounds, column, names))
        for column, axis in drawn.items()
    ]
    return Section(
        "Learning curves",
        "Mean and 95 % interval over seeds, as far as all seeds have gone. A round in which the "
        "server had no upload has no loss.",
        charts=(Chart("Validation accuracy and training loss over rounds.", panels),),
    )


def _costs(table: pd.DataFrame, axes: Axes) -> Section:
    return Section(
        "Communication, memory and time",
        "What a client receives in a round (the views of every item, and the backbone's network) "
        "and sends (a gradient row per item that it touched), in kilobytes of float32; what the "
        "server learns; what a client keeps to itself; and what the run took on this machine. "
        "Bytes are means over the clients that trained, round by round. Runs that differ in "
        "nothing that a program is compiled for share one program. Its compilation counts once, "
        "for whichever run compiled it, so a whole run may take less. Peak memory is that of the "
        "whole process while a run went on, the most of the runs that share a program.",
        seeds.combined(table, axes, _COSTS),
    )


def _reliance(table: pd.DataFrame, axes: Axes) -> Section | None:
    """What clients' scores rest on, and how routers weigh the views."""
    shares = {f"reliance/mean/{m}": m for m in MODALITIES if f"reliance/mean/{m}" in table}
    if not shares:
        return None
    names = seeds.varied(axes)
    means = seeds.combined(table, axes, shares)
    panel = Panel(
        Axis(", ".join(names), labels=seeds.labels(means, names)),
        Axis("mean share of clients' scores", limits=(0.0, 1.0)),
        stacked({m: means[m].astype(float).tolist() for m in shares.values()}),
    )
    prefix = "router/mean/"
    views = {c: f"weight of {c.removeprefix(prefix)}" for c in table if c.startswith(prefix)}
    routed = table[table[list(views)].notna().any(axis=1)] if views else table.iloc[:0]
    weights = None
    if len(routed):
        weights = seeds.combined(routed, axes, views).dropna(axis=1, how="all")
    return Section(
        "What clients rely on",
        "Shares of image, text and ID in a client's scores, by how far they move when a modality "
        "is taken out (docs/method.md, Reliance), mean over clients; and the mean weights that "
        "personal routers give the views (variant fedvlr).",
        weights,
        charts=(Chart("Mean share of image, text and ID in clients' scores.", [panel]),),
    )


def _failed(table: pd.DataFrame) -> Section | None:
    failed = table.loc[table["status"] == FAILED, ["run", "reason"]]
    if failed.empty:
        return None
    text = "They are tried once more with --retry_failed."
    return Section("Failed runs", text, failed.reset_index(drop=True))


def _settings(configs: Mapping[str, Config], axes: Axes) -> Section:
    """What all runs share, what differs from the defaults first."""
    first = next(iter(configs.values()))
    default, shared = defaults_beside(first), first.flat()
    rows = [
        {"setting": name, "value": _text(shared[name]), "default": _text(default[name])}
        for name in default
        if name not in axes
    ]
    rows.sort(key=lambda row: row["value"] == row["default"])
    text = "What is not at its default comes first; what is swept is left out."
    return Section("Settings of all runs", text, pd.DataFrame(rows))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _commands(table: pd.DataFrame, configs: Mapping[str, Config], out: Path) -> Section:
    commands = []
    for run in table["run"]:
        flat, default = configs[run].flat(), defaults_beside(configs[run])
        given = {n: v for n, v in flat.items() if v is not None and v != default[n]}
        commands.append(command(given, Path("runs/again")))
    ((score, head),) = _at(seeds.cutoff(table), {_SCORE: _HEADLINE[_SCORE]}).items()
    columns = table.reindex(columns=["run", "status", score]).assign(command=commands)
    return Section(
        "Every run",
        f"The command trains the run again. What it has left in this sweep is in {out / 'runs'}. "
        "All columns are in results.csv.",
        columns.rename(columns={score: head}).reset_index(drop=True),
    )
