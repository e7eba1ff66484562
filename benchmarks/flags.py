"""Flags that both benchmarks have, and lists in them."""

from typing import Any

from absl import flags

from benchmarks import workload
from experiments import cli
from experiments.lists import distinct, names
from fedvlr_jax import config
from fedvlr_jax.errors import UserError

__all__ = ["define_timing", "define_workload", "given_workload", "names", "sizes"]


def define_workload(into: flags.FlagValues) -> None:
    """Define a flag for every setting of the workload that may differ, with its standard value."""
    leaves = config.leaves()
    cli.define_settings(into, {name: leaves[name] for name in workload.SETTINGS})
    for name, value in workload.STANDARD.items():
        into.set_default(name, value)


def define_timing(into: flags.FlagValues, out: str) -> None:
    """Define --seconds, --limit and --out."""
    flags.DEFINE_float(
        "seconds", 10.0, "Wall seconds of timed rounds at every point.", 0.0, flag_values=into
    )
    flags.DEFINE_float(
        "limit", 900.0, "Wall seconds after which a point is given up.", 1.0, flag_values=into
    )
    flags.DEFINE_string("out", out, "Folder of the results.", flag_values=into)


def given_workload(values: flags.FlagValues) -> dict[str, Any]:
    """The settings of the workload that somebody gave."""
    return cli.given_settings(values, workload.SETTINGS)


def sizes(flag: str, text: str) -> list[int]:
    """The numbers in a comma-separated list, ascending.

    Raises:
        UserError: something else than distinct whole numbers from 1 on.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--{flag}={text}: expected whole numbers from 1 on, like 100,1000")
    return sorted(distinct(flag, text, [int(part) for part in parts]))
