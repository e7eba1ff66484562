"""A sweep: all runs are known from the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fedvlr_jax.config import Config
from fedvlr_jax.record import RUNS_FOLDER
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.scheduler import Plan, Planner


class Grid(Planner):
    """Wants runs that are given.

    Args:
        runs: configurations by name.
    """

    kind: ClassVar[str] = "sweep"

    def __init__(self, runs: Mapping[str, Config]) -> None:
        self._plans = {name: Plan(config, Path(RUNS_FOLDER, name)) for name, config in runs.items()}

    def wanted(self, rows: Mapping[str, Row]) -> Mapping[str, Plan]:  # noqa: ARG002
        """All of them."""
        return self._plans
