"""The paper's comparison on a data set: python -m experiments.paper --data=data/KU"""

from pathlib import Path

import pandas as pd
from absl import flags

from experiments import cli, grids, lists
from experiments.reporting import Quiet, facts
from fedvlr_jax import data, files, names
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.processes import cores
from fedvlr_jax.registry import BACKBONES
from fedvlr_jax.report import drawing, paper_page, paper_tables, sections, shell, tabulate
from fedvlr_jax.settings import Check
from fedvlr_jax.study import ablation, cold_start
from fedvlr_jax.study.central import kept_references
from fedvlr_jax.study.search import Combination, Found, Study

USAGE = """
    usage: python -m experiments.paper --data=DIR [--backbones=fedavg,...] [--variants=id,...]
                                       [--seeds=N] [--rounds=N] [--out=DIR] ...

    Trains every backbone with every variant, all with the same search for learning rates on
    validation, and writes report.html, tables/*.csv and *.md, and figures/*.png: the data, accuracy
    beside centralized references, cold start, parameters and communication, whether fedvlr differs
    from mlp, what its users rely on, each modality removed, and noise on gradients. Run the same
    command again to go on after an interruption.
"""

_SET_HERE = ("backbone", "variant", *grids.SET_HERE)
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
    grids.define_flags(into)
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
    cli.define_compilation_cache(into)
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
    grid, seeds = grids.grid(values), range(values.seeds)
    noises = lists.positive_numbers("noises", values.noises) if values.noises else ()
    settings = dict(_DEFAULTS)
    settings |= cli.given_settings(values, leaves(), without=_SET_HERE)
    configured = Config.of(**settings)
    if len(seeds) > 1 and configured.schedule.eval_clients:
        raise UserError(
            f"--eval_clients={configured.schedule.eval_clients}: every seed has a sample of its "
            "own, and users are compared over seeds; expected 0, or --seeds=1"
        )
    out = values.out
    files.check_folder(out)
    shell.check_place(out / "report.html")
    cores.begin()
    dataset = data.load(configured)
    study = Study(settings, dataset, grid, seeds, out, cli.tell, Quiet())
    _check(study, combinations, values)
    for name in ("tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    made = _Made(out)
    made.add("data", paper_tables.data_table(dataset))
    central = kept_references(dataset, out, cli.tell)
    found: list[Found] = []
    for combination in combinations:
        try:
            found.append(study.search(combination))
        except DivergedError as reason:
            cli.tell(f"{reason}; it is left out")
            continue
        made.add("accuracy", paper_tables.accuracy_table(found, central))
    if not found:
        raise DivergedError(
            "every combination diverges at all learning rates, expected smaller rates"
        )
    _compare(made, found, dataset)
    personal = [f for f in found if f.combination.variant == _PERSONAL]
    if personal:
        made.add("reliance", paper_tables.reliance_table(personal))
    if personal and values.ablations:
        removed = [part for f in personal for part in ablation.without_modalities(study, f)]
        made.add("removal", paper_tables.changes_table("removed", removed))
    if personal and noises:
        noisy = [part for f in personal for part in ablation.with_noise(study, f, noises)]
        made.add("noise", paper_tables.changes_table("noise", noisy))
    if values.newcomers:
        compared = [f for f in found if f.combination.variant in (_PERSONAL, _GENERIC)]
        joined = cold_start.newcomers_table(study, compared or found, values.newcomers)
        made.add("newcomers", joined)
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


def _check(study: Study, combinations: list[Combination], values: flags.FlagValues) -> None:
    """Refuse before the first run, which may take hours, what would be refused at a later one.

    Raises:
        UserError: settings that contradict each other or do not fit data or devices.
    """
    for combination in combinations:
        study.check(combination)
        if combination.variant == _PERSONAL and values.ablations:
            for changed in ablation.removals(study, combination).values():
                study.check(combination, **changed)
    if values.newcomers:
        members, _ = cold_start.of_members(study, values.newcomers)
        for combination in combinations:
            members.check(combination)


class _Made:
    """The tables so far, in memory and on disk."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "tables"
        self.tables: dict[str, pd.DataFrame] = {}

    def add(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table and write it, if there is anything in it."""
        if len(table):
            self.tables[name] = table
            tabulate.write(table, self._folder, name)


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
