"""Flags that several benchmarks have, and lists in them."""

import math
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import workload
from experiments import cli
from experiments.lists import distinct, names
from fedvlr_jax import config
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import AT_LEAST_ONE, NOT_NEGATIVE, Check, UnfitError, parsed

_LIMIT: Check = (lambda v: math.isfinite(v) and v >= 1, "a finite number of at least 1")

__all__ = ["define_timing", "define_workload", "given_workload", "names", "sizes"]


def define_workload(into: flags.FlagValues, names: Sequence[str] = workload.SETTINGS) -> None:
    """Define a flag for settings of the workload, by default those that leave others comparable.

    Where the standard workload has a value of its own, the flag does, too.
    """
    leaves = config.leaves()
    cli.define_settings(into, {name: leaves[name] for name in names})
    for name, value in workload.STANDARD.items():
        if name in names:
            into.set_default(name, value)


def define_timing(into: flags.FlagValues, out: str) -> None:
    """Define --seconds, --limit and --out."""
    cli.define_number(
        into,
        "seconds",
        10.0,
        "Seconds (wall clock) for which rounds are timed at every point.",
        NOT_NEGATIVE,
        float,
    )
    cli.define_number(
        into,
        "limit",
        900.0,
        "Seconds (wall clock) after which a point is given up.",
        _LIMIT,
        float,
    )
    cli.define_path(into, "out", out, "Folder of the results.")


def given_workload(
    values: flags.FlagValues, names: Sequence[str] = workload.SETTINGS
) -> dict[str, Any]:
    """The settings of the workload that somebody gave."""
    return cli.given_settings(values, names)


def sizes(flag: str, text: str) -> list[int]:
    """The numbers in a comma-separated list, ascending.

    Raises:
        UserError: something else than distinct whole numbers from 1 on.
    """
    try:
        if not all(part.isdecimal() for part in text.split(",")):
            raise UnfitError
        found = [parsed(int, AT_LEAST_ONE, part) for part in text.split(",")]
    except UnfitError:
        raise UserError(
            f"--{flag}={text}: expected whole numbers from 1 on, like 100,1000"
        ) from None
    return sorted(distinct(flag, text, found))
