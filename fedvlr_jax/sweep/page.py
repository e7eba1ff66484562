"""What a sweep's report says, section by section."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedvlr_jax import record
from fedvlr_jax.config import Config, DataConfig, leaves
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.pages.charts import Axis, Line, of_lines, of_shares
from fedvlr_jax.pages.sections import Section
from fedvlr_jax.settings import setting_type
from fedvlr_jax.simulation.traced import program_of
from fedvlr_jax.sweep import seeds, tables
from fedvlr_jax.sweep.declare import Axes
from fedvlr_jax.sweep.store import FAILED, FINISHED

_SCORE = "test/warm/ndcg@50"
_POPULARITY = "popularity/test/warm/ndcg@50"
_COMPILATION, _MEMORY = "timing/program_compile_seconds", "memory/program_peak_rss_bytes"
_COMPILED = {"timing/compile_seconds": _COMPILATION, "memory/peak_rss_bytes": _MEMORY}
# Where runs differ in one of these, they are of other populations or evaluate other clients.
_OF_POPULATIONS = (*(field.name for field in dataclasses.fields(DataConfig)), "eval_clients")
_HEADLINE = {
    _SCORE: "warm NDCG@50, %",
    "test/warm/hr@50": "warm HR@50, %",
    _POPULARITY: "popularity's NDCG@50, %",
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
    _COMPILATION: "compilation of the program, once, s",
    "timing/total_seconds": "whole run, s",
}
# Shown over what is swept; whether by equal factors, as what grows with a power of it is.
_DRAWN = (
    ("timing/round_seconds_median", Axis("median round time (s)", log=True), "Time of a round"),
    ("timing/client_rounds_per_second", Axis("client updates per second", log=True), "Throughput"),
    ("memory/peak_rss_gb", Axis("peak memory (GB)", zero=True), "Peak memory"),
    (_SCORE, Axis("test NDCG@50, warm (%)", zero=True), "Accuracy"),
)
_UNITS = {
    "memory/peak_rss_gb": (_MEMORY, 1e-9),
    "memory/client_state_mb": ("memory/client_state_bytes", 1e-6),
    "communication/download_kb": ("communication/download_bytes_per_client_round", 1e-3),
    "communication/upload_kb": ("communication/upload_bytes_per_client_round", 1e-3),
}
_X_UNITS = {"clients": "number of clients", "items": "number of items", "seed": "seed"}


def sections(
    table: pd.DataFrame, configs: Mapping[str, Config], axes: Axes, out: Path
) -> list[Section]:
    """The report's sections.

    Args:
        table: of `tables.results`.
        configs: of all runs, by name.
        axes: what was swept.
        out: folder of the sweep, whose runs' learning curves are read.
    """
    table = _of_programs(seeds.in_order(table, axes), configs)
    for name, (column, factor) in _UNITS.items():
        if column in table:
            table = table.assign(**{name: table[column] * factor})
    found = [_headline(table, axes), _scaling(table, axes), _curves(table, axes, out)]
    found += [_costs(table, axes), _reliance(table, axes), _failed(table)]
    found += [_settings(configs, axes), _commands(table, configs, out)]
    return [section for section in found if section is not None]


def command(config: Config, out: Path) -> str:
    """The command that trains such a run in a folder."""
    plain = Config.of().flat()
    given = [
        f"--{name}={value}"
        for name, value in config.flat().items()
        if value is not None and value != plain[name]
    ]
    return shlex.join(["python", "-m", "experiments.train", *given, f"--out={out}"])


def _of_programs(table: pd.DataFrame, configs: Mapping[str, Config]) -> pd.DataFrame:
    """With time and memory of compilation in all runs that share a program, not in one of them."""
    programs = [hash(program_of(configs[run])) for run in table["run"]]
    for own, shared in _COMPILED.items():
        if own in table:
            found = table[own].astype(float).groupby(programs).transform("max")
            table = table.assign(**{shared: found})
    return table


def _headline(table: pd.DataFrame, axes: Axes) -> Section:
    text = (
        "Test metrics over warm clients (somebody has their test item in train), in percent, of "
        "the round that was best on validation. Popularity ranks items by how many have them. "
        "Updates a second are those of clients that trained; a round's seconds are its median."
    )
    for sentence in tables.remarks(table):
        text += f" {sentence[0].upper()}{sentence[1:]}."
    return Section(
        "Results",
        text,
        seeds.combined(table, axes, _HEADLINE),
        best=tuple(_HEADLINE[name] for name in (_SCORE, "test/warm/hr@50")),
        among=tuple(name for name in seeds.varied(axes) if name in _OF_POPULATIONS),
    )


def _scaling(table: pd.DataFrame, axes: Axes) -> Section | None:
    """Charts over the numbers that are swept, and the powers that time and memory grow with."""
    x = seeds.along(axes)
    if x is None:
        return None
    counted = setting_type(leaves()[x]) is int and min(axes[x]) > 0
    others = [name for name in seeds.varied(axes) if name != x]
    found = seeds.combined(table, axes, {column: column for column, _, _ in _DRAWN})
    finished = table[table["status"] == FINISHED]
    groups = list(found.groupby(others, sort=False)) if others else [((), found)]
    drawn, slopes = [], []
    for column, axis, title in _DRAWN:
        lines = []
        for style, (values, group) in enumerate(groups):
            group = group.dropna(subset=[column]).sort_values(x)
            if group.empty:
                continue
            name = seeds.label(group.iloc[0], others) or title
            numbers = seeds.drawn(group, column, x)
            runs = finished[(finished[others] == list(values)).all(axis=1)]
            fit = None
            if counted and column != _SCORE:
                fit = seeds.slope(*(runs[n].astype(float).to_numpy() for n in (x, column)))
            if fit is not None:
                slopes.append(
                    {
                        "what": title.lower(),
                        **{n: group[n].iloc[0] for n in others},
                        f"power of {x}": fit[0],
                        f"power of {x} ci": fit[1],
                    }
                )
                name += f" (power {fit[0]:.2f})"
                if axis.log:
                    fitted = np.exp(fit[2]) * np.array(numbers[0], float) ** fit[0]
                    lines.append(Line(name, numbers[0], fitted.tolist(), None, style, True, False))
            lines.append(Line(name, *numbers, style))
        if column == _SCORE:
            lines.append(_popularity(table, x))
        log = counted or _by_factors(axes[x])
        across = Axis(_X_UNITS.get(x, x), log=log, marks=tuple(axes[x]))
        drawn.append(of_lines(f"{title} over {across.name}.", across, axis, lines))
    text = "Bars are 95 % intervals over seeds; of two seeds, their range."
    if slopes:
        text += (
            f" Dashed lines are powers of {x}, fitted to all runs by least squares on logarithms, "
            "with the 95 % interval of the power: 1 is proportional, 0 does not grow."
        )
    shown = pd.DataFrame(slopes) if slopes else None
    return Section(f"Over {x}", text, shown, charts=tuple(drawn))


def _by_factors(values: Sequence[float]) -> bool:
    """Whether numbers are further apart than a line from the first to the last shows."""
    return min(values) > 0 and max(values) >= 10 * min(values)


def _popularity(table: pd.DataFrame, x: str) -> Line:
    found = table.dropna(subset=[_POPULARITY]).groupby(x)[_POPULARITY].mean()
    return Line("popularity", found.index.tolist(), found.tolist(), style=6, dashed=True)


def _curves(table: pd.DataFrame, axes: Axes, out: Path) -> Section | None:
    """Validation accuracy and loss over rounds, read from the runs' folders."""
    names = seeds.varied(axes)
    lines = [
        pd.DataFrame(measured).assign(run=run)
        for run in table.loc[table["status"] == FINISHED, "run"]
        if (measured := record.evaluations(out / "runs" / run))
    ]
    if not lines:
        return None
    rounds = pd.concat(lines).merge(table[["run", *names]], on="run")
    x = Axis("round")
    drawn = []
    for column, axis in (
        ("valid/warm/ndcg@50", Axis("valid NDCG@50, warm (%)", zero=True)),
        ("train_loss", Axis("training loss (nats per sample)")),
    ):
        groups = rounds.groupby(names, sort=False) if names else [((), rounds)]
        curves = []
        for style, (_, group) in enumerate(groups):
            by_round = group.assign(y=pd.to_numeric(group[column])).groupby("round")["y"]
            # Where all seeds have been: a mean over fewer would jump.
            whole = by_round.count() == group["run"].nunique()
            means = by_round.mean()[whole]
            limits = seeds.bounds(column)
            found = [
                seeds.interval(by_round.get_group(number).tolist(), *limits) or (mean, mean)
                for number, mean in means.items()
            ]
            ends = [low for low, _ in found], [high for _, high in found]
            name = seeds.label(group.iloc[0], names) or "all runs"
            curves.append(Line(name, means.index.tolist(), means.tolist(), ends, style))
        drawn.append(of_lines(f"{axis.name} over rounds.", x, axis, curves, bands=True))
    return Section(
        "Learning curves",
        "Mean and 95 % interval over seeds (of two seeds, their range), as far as all seeds have "
        "gone. A round in which the server had no upload has no loss.",
        charts=tuple(drawn),
    )


def _costs(table: pd.DataFrame, axes: Axes) -> Section:
    return Section(
        "Communication, memory and time",
        "What a client receives in a round (the views of every item, and the backbone's network) "
        "and sends (a gradient row per touched item), in kilobytes of float32; what the server "
        "learns; what a client keeps to itself; and what the run took on this machine. Bytes are "
        "means over the clients that trained, round by round. Runs that differ in nothing that a "
        "program is compiled for share it: it counts once, for whichever of them compiled it, so a "
        "whole run may take less. Peak memory is that of the whole process while a run went on, "
        "the most of the runs that share a program.",
        seeds.combined(table, axes, _COSTS),
    )


def _reliance(table: pd.DataFrame, axes: Axes) -> Section | None:
    """What clients' scores rest on, and how routers weigh the views."""
    shares = {f"reliance/mean/{m}": m for m in MODALITIES if f"reliance/mean/{m}" in table}
    if not shares:
        return None
    names = seeds.varied(axes)
    found = seeds.combined(table, axes, shares)
    labels = [seeds.label(row, names) or "all runs" for _, row in found.iterrows()]
    chart = of_shares(
        "Mean share of image, text and ID in clients' scores.",
        Axis(", ".join(_X_UNITS.get(name, name) for name in names)),
        Axis("mean share of clients' scores"),
        labels,
        {m: found[m].tolist() for m in shares.values()},
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
        charts=(chart,),
    )


def _failed(table: pd.DataFrame) -> Section | None:
    failed = table.loc[table["status"] == FAILED, ["run", "reason"]]
    if failed.empty:
        return None
    return Section(
        "Failed runs",
        "They are tried once more with --retry_failed.",
        failed.reset_index(drop=True),
    )


def _settings(configs: Mapping[str, Config], axes: Axes) -> Section:
    """What all runs share, what differs from the defaults first."""
    plain, shared = Config.of().flat(), next(iter(configs.values())).flat()
    rows = [
        {"setting": name, "value": _text(shared[name]), "default": _text(plain[name])}
        for name in plain
        if name not in axes
    ]
    rows.sort(key=lambda row: row["value"] == row["default"])
    return Section(
        "Settings of all runs",
        "What is not at its default comes first; what is swept is left out.",
        pd.DataFrame(rows),
    )


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _commands(table: pd.DataFrame, configs: Mapping[str, Config], out: Path) -> Section:
    rows = [
        {
            "run": row["run"],
            "status": row["status"],
            "warm NDCG@50, %": row.get(_SCORE),
            "command": command(configs[row["run"]], Path("runs/again")),
        }
        for _, row in table.iterrows()
    ]
    return Section(
        "Every run",
        f"The command trains the run again; what this sweep's has left is in {out / 'runs'}. All "
        "columns are in results.csv.",
        pd.DataFrame(rows),
    )
