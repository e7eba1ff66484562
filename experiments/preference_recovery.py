"""Do routers learn what is there? python -m experiments.preference_recovery"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from absl import flags

from experiments import cli, lists, scheduling
from fedvlr_jax import data, files
from fedvlr_jax.config import leaves
from fedvlr_jax.errors import DivergedError
from fedvlr_jax.processes import cores
from fedvlr_jax.report import drawing, paper_page, paper_tables, tabulate
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.study import Combination, Studies, Study
from fedvlr_jax.settings import setting

USAGE = """
    usage: python -m experiments.preference_recovery [--concentrations=0.1,0.3,...] [--seeds=N]
                                                     [--clients=N] [--items=N] [--out=DIR] ...

    Generates a population for each concentration: its clients prefer image, text or ID by a
    Dirichlet distribution. Trains fedvlr and mlp with the same search on validation. Writes
    tables/recovery (do clients rely on the modality that they prefer, and what does fedvlr gain by
    it?) and figures/recovery.png. Run the same command again to go on after an interruption.
"""

_VARIANTS = ("fedvlr", "mlp")
_SET_HERE = ("data", "variant", "preference_concentration", *scheduling.SET_BY_STUDIES)
# The population that the numbers in the documentation are of.
_DEFAULTS = {"clients": 2000, "items": 800, "rounds": 60}


@dataclass(frozen=True)
class _Own:
    concentrations: str = setting(
        "0.1,0.3,1,3,10,30,100",
        "Dirichlet concentrations of the clients' preferences to try, separated by commas. "
        "With a small one, every client cares about one modality only.",
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE, defaults=_DEFAULTS)
    cli.define(into, *scheduling.STUDIES, _Own)
    cli.define_path(into, "out", "runs/recovery", "Folder of the study.")


def main(values: flags.FlagValues) -> None:
    """Study every concentration, and renew table and figure after each."""
    concentrations = lists.positive_numbers("concentrations", values.concentrations)
    settings = _DEFAULTS | cli.given_settings(values, leaves(), without=_SET_HERE)
    backbone = settings.pop("backbone", "fedavg")
    out = values.out
    files.check_folder(out)
    combinations = [Combination(backbone, variant) for variant in _VARIANTS]
    grids = scheduling.grids(values, settings, combinations)
    studies = {
        concentration: Study(
            settings=settings | {"preference_concentration": concentration},
            grids=grids,
            seeds=range(values.seeds),
            out=out,
            folder=f"concentration{concentration:g}",
        )
        for concentration in concentrations
    }
    # Concentrations differ in preferences alone: what one is refused, all would be.
    cores.begin()
    first = studies[concentrations[0]]
    configured = first.config(combinations[0], grids[combinations[0]][0], 0)
    first.check(data.load(configured))
    planner, tables = Studies(list(studies.values())), _Tables(studies, out)
    rows = scheduling.execute(
        *(planner, out, values, scheduling.StudyLines(), tables.renew),
        configured.execution.devices,
        with_events=False,
    )
    for concentration, study in studies.items():
        for combination in combinations:
            if study.result(combination, rows) is None:
                reason = scheduling.why_nothing(study, combination, rows)
                cli.tell(f"concentration {concentration:g}: {reason}; it is left out")
    if not (out / "tables" / "recovery.md").exists():
        raise DivergedError(
            "every run diverges at all that was searched, expected smaller learning rates"
        )
    print((out / "tables" / "recovery.md").read_text() + f"written to {out}")


class _Tables:
    """Tables and the figure of the concentrations so far."""

    def __init__(self, studies: Mapping[float, Study], out: Path) -> None:
        self._studies, self._out = studies, out
        self._parts: dict[float, tuple[pd.DataFrame, pd.DataFrame]] = {}

    def renew(self, rows: Mapping[str, Row]) -> None:
        """Write tables and figure if a concentration has been added."""
        before = len(self._parts)
        for concentration, study in self._studies.items():
            results = [study.result(combination, rows) for combination in study.combinations]
            if concentration in self._parts or None in results:
                continue
            planted = data.load(study.config(results[0].combination, results[0].point, 0)).planted
            recovered = paper_tables.recovery_table(planted, *results)
            recovered.insert(0, "concentration", concentration)
            accuracy = paper_tables.accuracy_table(results, []).assign(concentration=concentration)
            self._parts[concentration] = recovered, accuracy
        if len(self._parts) == before:
            return
        parts = [self._parts[c] for c in self._studies if c in self._parts]
        recovery, accuracy = (pd.concat(part) for part in zip(*parts, strict=True))
        for name in ("tables", "figures"):
            (self._out / name).mkdir(parents=True, exist_ok=True)
        tabulate.write(recovery, self._out / "tables", "recovery")
        tabulate.write(accuracy, self._out / "tables", "accuracy")
        chart = paper_page.recovery(recovery, len(next(iter(self._studies.values())).seeds))
        drawing.write(chart, self._out / "figures" / "recovery.png")


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
