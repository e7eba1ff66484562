"""The paper's comparison on a data set: python -m experiments.paper --data=data/KU"""

from collections.abc import Mapping
from pathlib import Path

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
from fedvlr_jax.runs.study import Combination, Found, Study
from fedvlr_jax.settings import Check
from fedvlr_jax.study import ablation, cold_start
from fedvlr_jax.study.central import kept_references

USAGE = """
    usage: python -m experiments.paper --data=DIR [--backbones=fedavg,...] [--variants=id,...]
                                       [--seeds=N] [--rounds=N] [--out=DIR] ...

    Trains every backbone with every variant, all with the same search for learning rates on
    validation, and writes report.html, tables/*.csv and *.md, and figures/*.png: the data, accuracy
    beside centralized references, cold start, parameters and communication, whether fedvlr differs
    from mlp, what its users rely on, each modality removed, and noise on gradients. Run the same
    command again to go on after an interruption.
"""

_SET_HERE = ("backbone", "variant", *scheduling.SET_BY_STUDIES)
_DEFAULTS = {"rounds": 100, "patience": 5}
_NEWCOMERS: Check = (lambda v: 0 <= v <= 0.9, "a number from 0 to 0.9")
_PERSONAL, _GENERIC = "fedvlr", "mlp"


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE)
    for name, value in _DEFAULTS.items():
        into.set_default(name, value)
    for name, known in (("backbones", names.BACKBONES), ("variants", names.VARIANTS)):
        flags.DEFINE_string(
            name,
            ",".join(known),
            f"{name.capitalize()} to compare, separated by commas.",
            flag_values=into,
        )
    scheduling.define_study_flags(into)
    flags.DEFINE_string(
        "noises",
        "0.0001,0.001,0.01",
        "Standard deviations of the noise on gradients to try, separated by commas; '' means none.",
        flag_values=into,
    )
    cli.define_number(
        into,
        "newcomers",
        0.2,
        "Share of users who join only after training, in additional runs. 0 means none.",
        _NEWCOMERS,
        float,
    )
    flags.DEFINE_boolean(
        "ablations", True, "Remove each modality, in additional runs.", flag_values=into
    )
    cli.define_path(into, "out", "runs/paper", "Folder of the study.")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Study every combination, renew the tables after each, and end with the report."""
    combinations = [
        Combination(backbone, variant)
        for backbone in lists.names("backbones", values.backbones, BACKBONES)
        for variant in lists.names("variants", values.variants, names.VARIANTS)
    ]
    deviations = lists.positive_numbers("noises", values.noises) if values.noises else ()
    settings = dict(_DEFAULTS)
    settings |= cli.given_settings(values, leaves(), without=_SET_HERE)
    configured = Config.of(**settings)
    if values.seeds > 1 and configured.schedule.eval_clients:
        raise UserError(
            f"--eval_clients={configured.schedule.eval_clients}: every seed has a sample of its "
            "own, and users are compared over seeds; expected 0, or --seeds=1"
        )
    out = values.out
    files.check_folder(out)
    shell.check_place(out / "report.html")
    cores.begin()
    dataset = data.load(configured)
    removals = ablation.removals(configured.method, dataset.catalogue) if values.ablations else {}
    noises = ablation.noises(deviations)
    changes = {c: [] for c in combinations}
    for combination in combinations:
        if combination.variant == _PERSONAL:
            changes[combination] += [*removals.values(), *noises.values()]
    members, newcomers = None, None
    if values.newcomers:
        members, newcomers = cold_start.members_of(dataset, values.newcomers)
        for combination in _compared(combinations):
            changes[combination].append(members)
    study = Study(
        settings=settings,
        grid=scheduling.rate_grid(values),
        seeds=range(values.seeds),
        combinations=combinations,
        out=out,
        changes=changes,
        fingerprint=dataset.fingerprint(),
    )
    study.check(dataset)
    for name in ("tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    made = _Made(out, study)
    with Ledger(out, Study.kind).alone():  # one process makes what all of them use
        made.central = kept_references(dataset, out, cli.tell)
        made.add("data", paper_tables.data_table(dataset))
    told = scheduling.StudyLines(values.quiet, made.renew)
    rows = scheduling.execute(study, out, values, told, configured.execution.devices)
    with Ledger(out, Study.kind).alone():
        found = made.renew(rows)
        for combination in combinations:
            if combination not in [f.combination for f in found]:
                cli.tell(f"{scheduling.why_nothing(study, combination, rows)}; it is left out")
        if not found:
            raise DivergedError(
                "every combination diverges at all learning rates, expected smaller rates"
            )
        _compare(made, found, dataset)
        personal = [f for f in found if f.combination.variant == _PERSONAL]
        made.add("reliance", paper_tables.reliance_table(personal))
        for name, changed, plain in (("removal", removals, "nothing"), ("noise", noises, "0")):
            parts = [ablation.parts(study, f, plain, changed, rows) for f in personal if changed]
            made.add(
                name,
                paper_tables.changes_table(
                    {"removal": "removed"}.get(name, name), [x for part in parts for x in part]
                ),
            )
        if values.newcomers:
            joined = [f for f in found if members in changes[f.combination]]
            made.add(
                "newcomers",
                cold_start.newcomers_table(study, joined, members, newcomers, rows, cli.tell),
            )
        charts = paper_page.charts(made.tables, values.seeds)
        for name, chart in charts.items():
            drawing.write(chart, out / "figures" / f"{name}.png")
        page = sections.page(
            f"FedVLR on {dataset.name}",
            facts(
                "paper",
                data_set=f"{dataset.name}, SHA-256 {dataset.fingerprint()[:16]}",
                seeds=f"0 to {values.seeds - 1}",
                precision_of_products=configured.method.precision,
            ),
            paper_page.sections(made.tables, charts, values.seeds),
        )
        shell.write(out / "report.html", page)
    print((out / "tables" / "accuracy.md").read_text() + f"written to {out}: report.html")


def _compared(combinations: list[Combination]) -> list[Combination]:
    """Those that tell whether personal fusion pays, or all where none does."""
    told = [c for c in combinations if c.variant in (_PERSONAL, _GENERIC)]
    return told or combinations


class _Made:
    """The tables so far, in memory and on disk."""

    def __init__(self, out: Path, study: Study) -> None:
        self._folder, self._study = out / "tables", study
        self.central: list[Reference] = []
        self.tables: dict[str, pd.DataFrame] = {}
        self._found: list[Found] = []

    def add(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table and write it, if there is anything in it."""
        if len(table):
            self.tables[name] = table
            tabulate.write(table, self._folder, name)

    def renew(self, rows: Mapping[str, Row]) -> list[Found]:
        """What combinations have come to so far; the table of them is written when one is added."""
        found = [self._study.found(c, rows) for c in self._study.combinations]
        found = [f for f in found if f is not None]
        if found != self._found:
            self._found = found
            self.add("accuracy", paper_tables.accuracy_table(found, self.central))
        return found


def _compare(made: _Made, found: list[Found], dataset: Dataset) -> None:
    """All tables that need no runs of their own."""
    made.add("significance", paper_tables.significance_table(found, _PERSONAL, _GENERIC))
    made.add("history_length", cold_start.by_history_length(found))
    made.add("item_popularity", cold_start.by_item_popularity(found, dataset.interactions))
    made.add("parameters", paper_tables.parameter_table(found, dataset.name))
    made.add("communication", paper_tables.communication_table(found))
    made.add("curves", paper_tables.curves_table(found))


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
