"""One combination of backbone and variant: rates chosen on validation, then several seeds."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError, UserError
from fedvlr_jax.simulation.run import Result, train

Rates = tuple[float, float]  # of the server and of the client's head


@dataclass(frozen=True)
class Grid:
    """The learning rates that every combination is tried with."""

    server: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    client: tuple[float, ...] = (1e-2, 1e-1)

    def __iter__(self) -> Any:
        """Every pair of rates."""
        return itertools.product(self.server, self.client)


@dataclass(frozen=True)
class Combination:
    """A backbone with a variant."""

    backbone: str
    variant: str

    @property
    def name(self) -> str:
        """For folders and people."""
        return f"{self.backbone}-{self.variant}"


@dataclass(frozen=True)
class Found:
    """What a combination came to: the rates that validation chose, and a finished run per seed."""

    combination: Combination
    rates: Rates
    runs: tuple[Result, ...]


def study(
    combination: Combination,
    settings: dict[str, Any],
    dataset: Dataset,
    grid: Grid,
    seeds: Sequence[int],
    out: Path,
    tell: Callable[[str], None],
) -> Found:
    """Search rates with the first seed, then train the others at the chosen ones.

    Rates are traced, so all of it compiles once. Runs that are finished already are not done again.

    Args:
        combination: what is trained.
        settings: of `Config.of`, but for what the study sets.
        dataset: the data that the settings name.
        grid: rates to try; those that diverge are left out.
        seeds: of the runs, at least one.
        out: folder of the study; runs are in `out/runs/<combination>/`.
        tell: takes a line for every run.

    Raises:
        UserError: bad settings, or a combination that diverges at all rates.
    """

    def run(rates: Rates, seed: int) -> Result:
        server, client = rates
        config = Config.of(
            **settings,
            backbone=combination.backbone,
            variant=combination.variant,
            server_lr=server,
            client_lr=client,
            seed=seed,
        )
        folder = f"server{server:g}-client{client:g}-seed{seed}"
        result = train(config, out / "runs" / combination.name / folder, dataset=dataset)
        score = metrics.selection_score(result.summary["valid"])
        tell(f"{combination.name} {folder}: valid {metrics.SELECTION} {score:.2f}")
        return result

    tried: dict[Rates, Result] = {}
    for rates in grid:
        try:
            tried[rates] = run(rates, seeds[0])
        except DivergedError as reason:
            tell(f"{combination.name} server{rates[0]:g}-client{rates[1]:g}: {reason}")
    if not tried:
        raise UserError(f"{combination.name}: diverges at all rates, expected smaller ones")
    # The first of equal scores: the smallest rates.
    best = max(tried, key=lambda r: metrics.selection_score(tried[r].summary["valid"]))
    others = (run(best, seed) for seed in seeds[1:])
    return Found(combination, best, (tried[best], *others))
