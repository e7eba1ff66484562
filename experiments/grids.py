"""The flags of studies that search learning rates and then train several seeds."""

from absl import flags

from experiments import cli, lists
from fedvlr_jax.settings import SEEDS
from fedvlr_jax.study.search import Grid

SET_HERE = ("server_lr", "client_lr", "seed")


def define_flags(into: flags.FlagValues) -> None:
    """Define --server_rates, --client_rates and --seeds."""
    for name, rates, whose in (
        ("server_rates", Grid().server, "the server"),
        ("client_rates", Grid().client, "clients' heads"),
    ):
        text = f"Learning rates of {whose} to try, separated by commas."
        default = ",".join(f"{rate:g}" for rate in rates)
        flags.DEFINE_string(name, default, text, flag_values=into)
    cli.define_number(
        into, "seeds", 3, "Number of seeds for every combination, counted from 0.", SEEDS
    )


def grid(values: flags.FlagValues) -> Grid:
    """The rates to try.

    Raises:
        UserError: a list that is no list of different positive numbers.
    """
    return Grid(
        *(
            lists.positive_numbers(flag, values[flag].value)
            for flag in ("server_rates", "client_rates")
        )
    )
