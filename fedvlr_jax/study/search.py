"""One combination of backbone and variant: rates chosen on validation, then several seeds."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.errors import DivergedError
from fedvlr_jax.reporter import Reporter, Silent
from fedvlr_jax.simulation.run import Result, check, train

Rates = tuple[float, float]  # of the server and of the client's head


@dataclass(frozen=True)
class Grid:
    """The learning rates that every combination is tried with."""

    server: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
    client: tuple[float, ...] = (1e-2, 3e-2, 1e-1)

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


@dataclass(frozen=True)
class Study:
    """Runs that differ in backbone, variant, rates and seed, and share everything else.

    Rates are traced, so a combination compiles once. Runs that are finished are not done again.

    Attributes:
        settings: of `Config.of`, but for what differs.
        dataset: the data that the settings name.
        grid: rates to try.
        seeds: of the runs, at least one; the search takes the first.
        out: folder; runs are in `out/runs/<combination>/`.
        tell: takes a line for every run.
        reporter: of every run.
    """

    settings: dict[str, Any]
    dataset: Dataset
    grid: Grid
    seeds: Sequence[int]
    out: Path
    tell: Callable[[str], None]
    reporter: Reporter = Silent()  # noqa: RUF009 -- has no state

    def check(self, combination: Combination, **changed: Any) -> None:
        """Refuse now what would be refused when the runs of a combination begin.

        Args:
            combination: of the runs.
            **changed: settings of `Config.of`, see `vary`.

        Raises:
            UserError: settings that contradict each other or do not fit data or devices.
        """
        rates = next(iter(self.grid))
        configs = [self.config(combination, rates, seed, **changed) for seed in self.seeds]
        # Seeds differ in the sample of clients that is evaluated, and in nothing else.
        for config in configs if configs[0].schedule.eval_clients else configs[:1]:
            check(config, self.dataset)

    def search(self, combination: Combination) -> Found:
        """Search rates with the first seed, then train the others at the best ones.

        Rates at which a run diverges are left out.

        Raises:
            UserError: bad settings.
            DivergedError: a combination that diverges at all rates.
        """
        tried: dict[Rates, Result] = {}
        for rates in self.grid:
            with self._divergence_told(combination.name, rates):
                tried[rates] = self._run(combination, combination.name, rates, self.seeds[0])
        # The first of equal scores: the smallest rates.
        for rates in sorted(tried, key=lambda r: -_score(tried[r])):
            with self._divergence_told(combination.name, rates):
                others = [
                    self._run(combination, combination.name, rates, seed) for seed in self.seeds[1:]
                ]
                return Found(combination, rates, (tried[rates], *others))
        raise DivergedError(
            f"{combination.name}: diverges at all learning rates, expected smaller rates"
        )

    def vary(self, found: Found, name: str, **changed: Any) -> Found | None:
        """Train what was found once more, every seed, with some settings changed.

        None where a run diverges, which is told.

        Args:
            found: gives combination and rates.
            name: of the change, for people and folders.
            **changed: settings of `Config.of`.

        Raises:
            UserError: bad settings.
        """
        place = f"{found.combination.name}-{name}"
        with self._divergence_told(place, found.rates):
            runs = tuple(
                self._run(found.combination, place, found.rates, seed, **changed)
                for seed in self.seeds
            )
            return Found(found.combination, found.rates, runs)
        return None

    def _run(
        self, combination: Combination, place: str, rates: Rates, seed: int, **changed: Any
    ) -> Result:
        config = self.config(combination, rates, seed, **changed)
        out = self.out / "runs" / place / _name(rates, seed)
        result = train(config, out, self.reporter, self.dataset)
        self.tell(f"{place} {_name(rates, seed)}: valid {metrics.SELECTION} {_score(result):.2f}")
        return result

    def config(self, combination: Combination, rates: Rates, seed: int, **changed: Any) -> Config:
        """The configuration of one run."""
        chosen = {
            "backbone": combination.backbone,
            "variant": combination.variant,
            "server_lr": rates[0],
            "client_lr": rates[1],
            "seed": seed,
        }
        return Config.of(**self.settings | chosen | changed)

    @contextlib.contextmanager
    def _divergence_told(self, name: str, rates: Rates) -> Iterator[None]:
        try:
            yield
        except DivergedError as reason:
            self.tell(f"{name} at rates {rates[0]:g}, {rates[1]:g}: {reason}")


def _name(rates: Rates, seed: int) -> str:
    return f"server{rates[0]:g}-client{rates[1]:g}-seed{seed}"


def _score(result: Result) -> float:
    return metrics.selection_score(result.summary["valid"])
