"""What do more clients change? python -m experiments.scaling_study"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import cli, reporting, scheduling
from experiments.reporting import facts
from fedvlr_jax import files, targets
from fedvlr_jax.config import Config, having, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import drawing, scaling_page, scaling_results, sweep_results
from fedvlr_jax.runs import declare
from fedvlr_jax.runs.grid import Grid
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Row
from fedvlr_jax.settings import MOST_RUNS, Role, at_least, setting

USAGE = """
    usage: python -m experiments.scaling_study [--clients=N,N,...] [--seeds=N]
                                               [--target=METRIC:VALUE] [--out=DIR] ...

    Trains federations of several numbers of clients, each with several seeds, and tells how time
    per round, rounds and bytes to a target and accuracy change with the number of clients: fitted
    laws with 95 % intervals, and whether there is a trend at all. Writes report.html (open it in a
    browser), scaling.png, study.json and every run's own folder into --out. Run the same command
    again to go on after an interruption, or at the same time to share the work.
"""

_SET_HERE = ("clients", "seed", "target", "data")
# Every round is evaluated, as few are needed to a target; what is large is evaluated on a sample.
_DEFAULTS = {"rounds": 25, "eval_every": 1, "eval_clients": 2000, "keep_checkpoints": "none"}
_TARGET = "valid/warm/ndcg@50:0.95max"


@dataclass(frozen=True)
class _Own:
    clients: str = setting(
        "100,316,1000,3162,10000,31623",
        "Numbers of clients, separated by commas, at least two. --cohort and --eval_clients are at "
        "most these.",
    )
    sweep: list[str] = setting(
        (),
        "Another setting and its values, like variant=fedvlr,mlp: laws are fitted for each. Give "
        "the flag once for every setting.",
    )
    seeds: int = setting(
        5,
        "Number of seeds for every number of clients, counted from 0. Every run has a population "
        "of its own, unless --data_seed is given.",
        at_least(2, MOST_RUNS),
    )
    target: str = setting(
        _TARGET,
        "Validation accuracy to reach: METRIC:VALUE, like valid/warm/ndcg@50:12.5, or a share of "
        "every run's own best value, like valid/warm/ndcg@50:0.95max. Runs go on after it.",
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE, defaults=_DEFAULTS)
    cli.define(into, _Own, *scheduling.RUNS)
    cli.define_path(into, "out", "runs/scaling_study", "Folder of the study.")


def main(values: flags.FlagValues) -> None:
    """Do what is left of the study, and renew its page now and then."""
    runs, axes, own_populations = declared(values)
    target = targets.parsed(values.target)
    if target is None:
        raise UserError(
            f"--target={values.target}: expected {targets.EXPECTED} (here of every run's own best)"
        )
    wanted = {config.execution.devices for config in runs.values()}
    devices = wanted.pop() if len(wanted) == 1 else 0
    report = _Report(runs, axes, own_populations, values.out, values.target, target)
    display = reporting.Lines(runs)
    rows = scheduling.execute(Grid(runs), values.out, values, display, report.renew, devices)
    for sentence in report.sentences:
        cli.tell(sentence)
    for name, row in rows.items():
        if row.status == FAILED:
            cli.tell(f"failed: {name}: {row.content['reason']}")
    cli.tell(f"written to {values.out}: report.html, scaling.png, study.json, runs/")


def declared(values: flags.FlagValues) -> tuple[dict[str, Config], declare.Axes, bool]:
    """The runs by name, what they differ in, and whether every run has a population of its own.

    Raises:
        UserError: a bad setting or axis, one number of clients, or settings that contradict each
            other.
    """
    settings = _DEFAULTS | cli.given_settings(values, leaves(), without=_SET_HERE)
    axes = declare.axes([f"clients={values.clients}", *values.sweep])
    for name in _SET_HERE[1:]:
        if name in axes:
            flag = "seeds" if name == "seed" else name
            has = f"expected --{flag}" if flag in values else "expected another setting"
            raise UserError(f"--sweep={name}: is not swept by this study, {has}")
    for name in [name for name in axes if name in settings]:
        if name in _DEFAULTS and not values[name].present:
            del settings[name]
    if len(axes["clients"]) < 2:
        raise UserError(
            f"--clients={values.clients}: one number of clients shows no trend, expected at least "
            "two, like 100,1000"
        )
    axes["seed"] = tuple(range(values.seeds))
    declare.check_number(declare.SWEEP, axes)
    own_populations = "data_seed" not in settings and "data_seed" not in axes
    runs: dict[str, Config] = {}
    for clients in axes["clients"]:
        for seed in axes["seed"]:
            own = {"data_seed": _population(clients, seed)} if own_populations else {}
            here = axes | {"clients": (clients,), "seed": (seed,)}
            runs |= declare.runs(_fitting(settings, clients) | own, here)
    return runs, axes, own_populations


def _population(clients: int, seed: int) -> int:
    """The seed of a population that no other number of clients and no other seed has.

    With one seed of data, small populations would be the first clients of large ones, over the
    same items, and chance would look like a trend.
    """
    return int(np.random.SeedSequence([clients, seed]).generate_state(1)[0] >> 1)  # an int32


def _fitting(settings: Mapping[str, Any], clients: int) -> dict[str, Any]:
    """The settings with a cohort and a sample of no more clients than there are."""
    counts = having(Role.CLIENTS)
    return {k: min(v, clients) if k in counts else v for k, v in settings.items()}


class _Report:
    """What is written of a study: now and then its laws so far, and all when it is done.

    Attributes:
        sentences: the answers, once all runs have ended.
    """

    def __init__(
        self,
        runs: Mapping[str, Config],
        axes: declare.Axes,
        own_populations: bool,
        out: Path,
        given: str,
        target: targets.Target,
    ) -> None:
        self._runs, self._axes, self._own_populations = runs, axes, own_populations
        self._out, self._given, self._target = out, given, target
        self._seldom = scheduling.Seldom()
        self.sentences: list[str] = []

    def renew(self, rows: Mapping[str, Row]) -> None:
        """Write what is known by now."""
        rows = {name: rows[name] for name in self._runs if name in rows}
        if not rows or not self._seldom.is_due(len(rows) == len(self._runs)):
            return
        table = scaling_results.table(rows, self._runs, self._axes, self._out, self._target)
        fitted = scaling_results.fits(table, self._axes, self._own_populations)
        self.sentences = [scaling_results.sentence(fit) for fit in fitted]
        study = scaling_results.study(fitted, table, self._given)
        files.write_json(self._out / "study.json", study)
        if fitted:
            drawn = scaling_page.chart(fitted, table, self._axes)
            drawing.write(drawn, self._out / "scaling.png")
        results = sweep_results.results(rows)
        ended = results["status"].value_counts()
        made = facts(
            "scaling_study",
            runs=f"{ended.get(FINISHED, 0)} finished, {ended.get(FAILED, 0)} failed, of "
            f"{len(self._runs)}",
            trained_on=sweep_results.machines(results),
        )
        remarks = sweep_results.remarks(results)
        told = fitted, table, self._axes, self._given
        # The answer comes first.
        page = scaling_page.page(f"Scaling study {self._out.name}", *told, remarks, made)
        files.write_text(self._out / "report.html", page)


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
