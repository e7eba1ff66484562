"""The paper's comparison on a data set: python -m experiments.paper --data=data/KU"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from absl import flags

from experiments import cli, lists, scheduling
from experiments.reporting import facts
from fedvlr_jax import data, files, names
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.processes import cores
from fedvlr_jax.references.choose import Reference
from fedvlr_jax.registry import BACKBONES
from fedvlr_jax.report import drawing, paper_page, paper_tables, sections, shell, tabulate
from fedvlr_jax.runs.ledger import Ledger, Row
from fedvlr_jax.runs.study import Change, Combination, Found, Study
from fedvlr_jax.settings import setting
from fedvlr_jax.study import ablation, cold_start
from fedvlr_jax.study.central import kept_references

USAGE = """
    usage: python -m experiments.paper --data=DIR [--backbones=fedavg,...] [--variants=id,...]
                                       [--seeds=N] [--rounds=N] [--out=DIR] ...

    Trains every backbone with every variant, all with the same search on validation, of learning
    rates or of what --search says, and writes report.html, tables/*.csv and *.md, and
    figures/*.png: the data, accuracy beside centralized references, cold start, parameters and
    communication, whether fedvlr differs from mlp, what its users rely on, each modality and each
    part of the learner removed, and noise on gradients. Run the same command again to go on after
    an interruption.
"""

_SET_HERE = ("backbone", "variant", *scheduling.SET_BY_STUDIES)
_DEFAULTS = {"rounds": 100, "patience": 5}
_PERSONAL, _GENERIC = "fedvlr", "mlp"


def _compared(known: tuple[str, ...], what: str) -> str:
    return setting(",".join(known), f"{what} to compare, separated by commas.")


@dataclass(frozen=True)
class _Compared:
    backbones: str = _compared(names.BACKBONES, "Backbones")
    variants: str = _compared(names.VARIANTS, "Variants")


@dataclass(frozen=True)
class _Own:
    noises: str = setting(
        "0.0001,0.001,0.01",
        "Standard deviations of the noise on gradients to try, separated by commas; '' means none.",
    )
    newcomers: float = setting(
        0.2,
        "Share of users who join only after training, in additional runs. 0 means none.",
        (lambda v: 0 <= v <= 0.9, "a number from 0 to 0.9"),
    )
    ablations: bool = setting(
        True, "Remove each modality and each part of the learner, in additional runs."
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE, defaults=_DEFAULTS)
    cli.define(into, _Compared, *scheduling.STUDIES, _Own)
    cli.define_path(into, "out", "runs/paper", "Folder of the study.")


def main(values: flags.FlagValues) -> None:
    """Study every combination, renew the tables after each, and end with the report."""
    config, dataset, newcomers, study = _planned(values)
    for name in ("tables", "figures"):
        (study.out / name).mkdir(parents=True, exist_ok=True)
    tables = _Tables(study)
    with Ledger(study.out, Study.kind).alone():  # one process makes what all of them use
        tables.central = kept_references(dataset, study.out, cli.tell)
        tables.add("data", paper_tables.data_table(dataset))
    rows = scheduling.execute(
        *(study, study.out, values, scheduling.StudyLines(), tables.renew),
        config.execution.devices,
        with_events=False,
    )
    with Ledger(study.out, Study.kind).alone():
        results = tables.renew(rows)
        for combination in study.combinations:
            if combination not in [result.combination for result in results]:
                cli.tell(f"{scheduling.why_nothing(study, combination, rows)}; it is left out")
        if not results:
            raise DivergedError(
                "every combination diverges at all that was searched, expected smaller rates"
            )
        _compare(tables, study, dataset, results, rows)
        if newcomers is not None:
            table = cold_start.newcomers_table(study, results, newcomers, rows, cli.tell)
            tables.add("newcomers", table)
        _write_page(tables, study, dataset, config.method.precision)
    accuracy = (study.out / "tables" / "accuracy.md").read_text()
    print(f"{accuracy}written to {study.out}: report.html")


def _planned(values: flags.FlagValues) -> tuple[Config, Dataset, Dataset | None, Study]:
    """What all runs share, the data, those of users who join later, and the study.

    Raises:
        UserError: a bad setting or list, or data that cannot be read.
    """
    combinations = [
        Combination(backbone, variant)
        for backbone in lists.names("backbones", values.backbones, BACKBONES)
        for variant in lists.names("variants", values.variants, names.VARIANTS)
    ]
    deviations = lists.positive_numbers("noises", values.noises) if values.noises else ()
    settings = _DEFAULTS | cli.given_settings(values, leaves(), without=_SET_HERE)
    config = Config.of(**settings)
    if values.seeds > 1 and config.schedule.eval_clients:
        raise UserError(
            f"--eval_clients={config.schedule.eval_clients}: every seed has a sample of its "
            "own, and users are compared over seeds; expected 0, or --seeds=1"
        )
    files.check_folder(values.out)
    shell.check_place(values.out / "report.html")
    cores.begin()
    dataset = data.load(config)
    of_telling, newcomers = [], None
    if values.newcomers:
        members, newcomers = cold_start.members_of(dataset, values.newcomers)
        of_telling = [members]
    # Those that tell whether personal fusion pays, or all where none does.
    telling = [c for c in combinations if c.variant in (_PERSONAL, _GENERIC)] or combinations

    def changes(combination: Combination) -> list[Change]:
        found = []
        if combination.variant == _PERSONAL:
            if values.ablations:
                method = Config.of(**settings | {"backbone": combination.backbone}).method
                found = ablation.removals(method, dataset.catalogue) + ablation.parts(method)
            found += ablation.noises(deviations)
        return found + (of_telling if combination in telling else [])

    study = Study(
        settings=settings,
        grids=scheduling.grids(values, settings, combinations),
        seeds=range(values.seeds),
        out=values.out,
        changes={combination: changes(combination) for combination in combinations},
        fingerprint=dataset.fingerprint(),
    )
    study.check(dataset)
    return config, dataset, newcomers, study


class _Tables:
    """The tables so far, in memory and on disk."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._results: list[Found] = []
        self.central: list[Reference] = []
        self.made: dict[str, pd.DataFrame] = {}

    def add(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table and write it, if there is anything in it."""
        if len(table):
            self.made[name] = table
            tabulate.write(table, self._study.out / "tables", name)

    def renew(self, rows: Mapping[str, Row]) -> list[Found]:
        """What combinations have come to so far; the table of them is written when one is added."""
        results = [self._study.result(c, rows) for c in self._study.combinations]
        results = [result for result in results if result is not None]
        if results != self._results:
            self._results = results
            self.add("accuracy", paper_tables.accuracy_table(results, self.central))
        return results


def _compare(
    tables: _Tables,
    study: Study,
    dataset: Dataset,
    results: list[Found],
    rows: Mapping[str, Row],
) -> None:
    """Make all tables but those of data, accuracy and newcomers."""
    tables.add("significance", paper_tables.significance_table(results, _PERSONAL, _GENERIC))
    personal = [result for result in results if result.combination.variant == _PERSONAL]
    tables.add("references", paper_tables.references_table(personal, tables.central))
    tables.add("history_length", cold_start.by_history_length(results))
    tables.add("item_popularity", cold_start.by_item_popularity(results, dataset.interactions))
    tables.add("parameters", paper_tables.parameter_table(results, dataset.name))
    tables.add("communication", paper_tables.communication_table(results))
    tables.add("curves", paper_tables.curves_table(results))
    tables.add("reliance", paper_tables.reliance_table(personal))
    for name, column, unchanged in (
        ("removal", "removed", "nothing"),
        ("parts", "part removed", "nothing"),
        ("noise", "noise", "0"),
    ):
        tables.add(name, ablation.table(study, results, column, unchanged, rows))


def _write_page(tables: _Tables, study: Study, dataset: Dataset, precision: str) -> None:
    """Draw all charts, and write the page of them and of the tables."""
    seeds = len(study.seeds)
    charts = paper_page.charts(tables.made, seeds)
    for name, chart in charts.items():
        drawing.write(chart, study.out / "figures" / f"{name}.png")
    made = facts(
        "paper",
        data_set=f"{dataset.name}, SHA-256 {dataset.fingerprint()[:16]}",
        seeds=f"0 to {seeds - 1}",
        precision_of_products=precision,
    )
    parts = paper_page.sections(tables.made, charts, seeds)
    shell.write(study.out / "report.html", sections.page(f"FedVLR on {dataset.name}", made, parts))


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
