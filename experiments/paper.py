"""The paper's comparison on a data set: python -m experiments.paper --data=data/KU"""

from pathlib import Path

from absl import flags

from experiments import cli, grids, lists
from fedvlr_jax import data, names
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.references.choose import references
from fedvlr_jax.study import tables
from fedvlr_jax.study.search import Combination, Found, Study

USAGE = """
    usage: python -m experiments.paper --data=DIR [--backbones=fedavg,...] [--variants=id,...]
                                       [--seeds=N] [--rounds=N] [--out=DIR] ...

    Trains every backbone with every variant, all with the same search for learning rates on
    validation, and writes tables/*.csv and *.md: the data, accuracy beside centralized
    references, parameters, and whether fedvlr differs from mlp. Run the same command again to go
    on after an interruption.
"""

_SET_HERE = ("backbone", "variant", *grids.SET_HERE)
_DEFAULT_ROUNDS = 60


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting that the study does not set, and its own."""
    cli.define_settings(into, leaves(), without=_SET_HERE)
    into.set_default("rounds", _DEFAULT_ROUNDS)
    for name, known in (("backbones", names.BACKBONES), ("variants", names.VARIANTS)):
        flags.DEFINE_string(
            name, ",".join(known), f"{name.capitalize()}, comma-separated.", flag_values=into
        )
    grids.define_flags(into)
    flags.DEFINE_string("out", "runs/paper", "Folder of the study.", flag_values=into)


FLAGS = flags.FlagValues()
define_flags(FLAGS)


def main(values: flags.FlagValues) -> None:
    """Study every combination, and renew the tables after each."""
    combinations = [
        Combination(backbone, variant)
        for backbone in lists.names("backbones", values.backbones, names.BACKBONES)
        for variant in lists.names("variants", values.variants, names.VARIANTS)
    ]
    grid, seeds = grids.grid(values), lists.seeds(values.seeds)
    settings = {"rounds": _DEFAULT_ROUNDS}
    settings |= cli.given_settings(values, leaves(), without=_SET_HERE)
    dataset = data.load(Config.of(**settings))
    folder = Path(values.out) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    tables.write(tables.data_table(dataset), folder, "data")
    central = list(references(dataset, seed=0))
    study = Study(settings, dataset, grid, seeds, Path(values.out), cli.tell)
    found: list[Found] = []
    for combination in combinations:
        found.append(study.search(combination))
        tables.write(tables.accuracy_table(found, central), folder, "accuracy")
        tables.write(tables.parameter_table(found), folder, "parameters")
        tables.write(tables.significance_table(found, "fedvlr", "mlp"), folder, "significance")
    print((folder / "accuracy.md").read_text() + f"written to {folder}")


if __name__ == "__main__":
    cli.run(main, FLAGS, USAGE)
