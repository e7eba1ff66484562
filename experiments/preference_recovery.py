"""Do routers learn what is there? python -m experiments.preference_recovery"""

import pandas as pd
from absl import flags

from experiments import cli, grids, lists
from experiments.reporting import Quiet
from fedvlr_jax import data, files
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.errors import DivergedError
from fedvlr_jax.processes import cores
from fedvlr_jax.report import drawing, paper_page, paper_tables, tabulate
from fedvlr_jax.study.search import Combination, Study

USAGE = """
    usage: python -m experiments.preference_recovery [--concentrations=0.1,0.3,...] [--seeds=N]
                                                     [--clients=N] [--items=N] [--out=DIR] ...

    Generates a population for each concentration: its clients prefer image, text or ID by a
    Dirichlet distribution. Trains fedvlr and mlp with the same search for learning rates. Writes
    tables/recovery (do clients rely on the modality that they prefer, and what does fedvlr gain by
    it?) and figures/recovery.png. Run the same command again to go on after an interruption.
"""

_VARIANTS = ("fedvlr", "mlp")
_SET_HERE = ("data", "variant", "preference_concentration", *grids.SET_HERE)
# The population that the numbers in the documentation are of.
_DEFAULTS = {"clients": 2000, "items": 800, "rounds": 60}


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE)
    for name, value in _DEFAULTS.items():
        into.set_default(name, value)
    grids.define_flags(into)
    flags.DEFINE_string(
        "concentrations",
        "0.1,0.3,1,3,10,30,100",
        "Dirichlet concentrations of the clients' preferences to try, separated by commas. "
        "With a small one, every client cares about one modality only.",
        flag_values=into,
    )
    cli.define_compilation_cache(into)
    cli.define_path(into, "out", "runs/recovery", "Folder of the study.")


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Study every concentration, and renew table and figure after each."""
    concentrations = lists.positive_numbers("concentrations", values.concentrations)
    grid, seeds = grids.grid(values), range(values.seeds)
    settings = _DEFAULTS | cli.given_settings(values, leaves(), without=_SET_HERE)
    backbone = settings.pop("backbone", "fedavg")
    out = values.out
    files.check_folder(out)
    combinations = [Combination(backbone, variant) for variant in _VARIANTS]

    def study_of(concentration: float) -> Study:
        here = settings | {"preference_concentration": concentration}
        place = out / f"concentration{concentration:g}"
        dataset = data.load(Config.of(**here))
        return Study(here, dataset, grid, seeds, place, cli.tell, Quiet())

    # Concentrations differ in preferences alone: what one is refused, all would be.
    cores.begin()
    first = study_of(concentrations[0])
    for combination in combinations:
        first.check(combination)
    for name in ("tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    parts, accuracy = [], []
    for concentration in concentrations:
        study = study_of(concentration)
        try:
            found = [study.search(combination) for combination in combinations]
        except DivergedError as reason:
            cli.tell(f"concentration {concentration:g}: {reason}; it is left out")
            continue
        added = {"concentration": concentration}
        parts.append(paper_tables.recovery_table(study.dataset.planted, *found).assign(**added))
        accuracy.append(paper_tables.accuracy_table(found, []).assign(**added))
        table = pd.concat(parts)
        table.insert(0, "concentration", table.pop("concentration"))
        tabulate.write(table, out / "tables", "recovery")
        tabulate.write(pd.concat(accuracy), out / "tables", "accuracy")
        drawing.write(paper_page.recovery(table, len(seeds)), out / "figures" / "recovery.png")
    if not parts:
        raise DivergedError("every run diverges at all learning rates, expected smaller rates")
    print((out / "tables" / "recovery.md").read_text() + f"written to {out}")


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
