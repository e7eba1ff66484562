"""Make a data set: python -m experiments.prepare --source=movielens --raw=ml-latest-small"""

from absl import flags

from experiments import cli
from experiments.reporting import Progress
from fedvlr_jax.foreign import printable
from fedvlr_jax.prepare import PrepareConfig, prepare
from fedvlr_jax.prepare.options import leaves

USAGE = """
    usage: python -m experiments.prepare --source=SOURCE [--raw=DIR] [--images=DIR] [--clip=MODEL]
                                         [--out=DIR] ...

    Makes a folder that experiments.train reads: interactions split by time, image and text
    features from a frozen CLIP, items.csv, users.csv and dataset.json. Run the same command again
    to go on after an interruption.
"""


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and --out."""
    cli.define_settings(into, leaves())
    cli.define(into, cli.Compiling)
    cli.define_path(into, "out", None, "Folder of the data set; default data/SOURCE.")


def main(values: flags.FlagValues) -> None:
    """Prepare with the flags' settings and print what was made."""
    config = PrepareConfig.of(**cli.given_settings(values, leaves()))
    done = prepare(config, values.out, Progress())
    kept = done.summary["kept"]
    print(
        f"{printable(str(done.out))}: {kept['users']:,} users, {kept['items']:,} items, "
        f"{kept['train']:,} train interactions"
    )
    featured = any((done.out / f"{m}_features.npy").exists() for m in ("image", "text"))
    variant = [] if featured else ["--variant=id"]
    print(f"train on it: {cli.command('experiments.train', f'--data={done.out}', *variant)}")


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
