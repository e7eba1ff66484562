"""What is searched: lines `name=values`, and the settings of a run at some point of them.

Values are a list to choose from (`dim=32,64,128`), or all numbers from one to another, whole ones
for settings that are, equally likely at first (`lin:0:0.5`) or by their logarithm (`log:1e-4:0.1`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fedvlr_jax.analysis.metrics import selection_cutoff
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.runs import declare, notation
from fedvlr_jax.runs.notation import Notation
from fedvlr_jax.settings import setting_type

SEARCH = Notation("search", "searched")


@dataclass(frozen=True)
class Range:
    """All numbers between two.

    Attributes:
        first: the smallest.
        last: the largest.
        log: whether numbers are as likely as their logarithms are dense.
        whole: whether only whole numbers are meant.
    """

    first: float
    last: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        """As it is written in a line."""
        return f"{'log' if self.log else 'lin'}:{self.first:g}:{self.last:g}"

    @property
    def ends(self) -> tuple[int | float, ...]:
        """The values that are checked before anything is trained."""
        return tuple(int(x) if self.whole else x for x in (self.first, self.last))

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        if self.whole:
            return IntDistribution(int(self.first), int(self.last), log=self.log)
        return FloatDistribution(self.first, self.last, log=self.log)

    def used(self, value: int | float) -> int | float:
        """What is trained with: six digits of what was suggested, so that names are short."""
        return value if self.whole else min(max(float(f"{value:.6g}"), self.first), self.last)


@dataclass(frozen=True)
class Choice:
    """One of some values, between which there is no order."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        """For people."""
        return ",".join(map(str, self.values))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are checked before anything is trained."""
        return self.values

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        return CategoricalDistribution(self.values)

    def used(self, value: Any) -> Any:
        """What is trained with: what was suggested."""
        return value


Space = dict[str, Range | Choice]


def read(lines: Sequence[str]) -> Space:
    """What lines of the form `name=values` declare, in order.

    Raises:
        UserError: no line, one that gives no known setting values to choose from, or two of one
            setting.
    """
    if not lines:
        raise UserError(
            "--search: nothing is searched, expected a setting and its values, like "
            "--search=server_lr=log:1e-4:1e-1"
        )
    space: Space = {}
    for name, text in SEARCH.split(lines).items():
        where = SEARCH.where(f"{name}={text}")
        if notation.is_range(name, text):
            first, last, _ = SEARCH.range(where, name, text)
            whole = setting_type(leaves()[name]) is int
            space[name] = Range(first, last, text.startswith("log"), whole)
        else:
            space[name] = Choice(SEARCH.listed(where, name, text))
    return space


@dataclass(frozen=True)
class Search:
    """A search: what is tried, and what all trials share.

    Attributes:
        settings: of `Config.of`, but for what is searched.
        space: what is searched.
        seeds: that every trial trains with; its score is their mean. None where the seed itself is
            searched.
        search_seed: of what is suggested.
        prune_from: the round before which no trial is pruned.
    """

    settings: dict[str, Any]
    space: Space
    seeds: tuple[int, ...] | None
    search_seed: int = 0
    prune_from: int = 0

    @property
    def cutoff(self) -> int:
        """K of the NDCG that is the score."""
        given = {name: self.settings[name] for name in ("cutoffs",) if name in self.settings}
        return selection_cutoff(Config.of(**given).schedule.cutoffs)

    def runs(self, params: Mapping[str, Any]) -> dict[str, Config]:
        """The configurations of a trial by the names of their folders, one for each seed.

        Raises:
            UserError: settings that contradict each other.
        """
        names = [*self.space, *(() if self.seeds is None else ("seed",))]
        seeds = [{}] if self.seeds is None else [{"seed": seed} for seed in self.seeds]
        configs = [Config.of(**self.settings | dict(params) | seed) for seed in seeds]
        return {declare.run_name(config, names): config for config in configs}

    def config(self, params: Mapping[str, Any]) -> Config:
        """The configuration of a trial's first run.

        Raises:
            UserError: settings that contradict each other.
        """
        return next(iter(self.runs(params).values()))

    def first(self) -> Config:
        """A configuration of the space: at one end of everything.

        Raises:
            UserError: an end of an axis is refused whatever the others are, or what is searched is
                set.
        """
        SEARCH.refuse_set(self.settings, list(self.space))
        # Settings that contradict each other at one end may not do so at the other.
        corners = [{name: axis.ends[k] for name, axis in self.space.items()} for k in (0, -1)]
        for name, axis in self.space.items():
            for value in axis.ends:
                self._any_of([corner | {name: value} for corner in corners])
        return self._any_of(corners)

    def _any_of(self, points: Sequence[Mapping[str, Any]]) -> Config:
        """The configuration of the first of some points that has one."""
        reasons = []
        for params in points:
            try:
                return self.config(params)
            except UserError as reason:
                reasons.append(reason)
        raise self._with_line(reasons[0])

    def _with_line(self, reason: UserError) -> UserError:
        """What is wrong with a value, with the line that it comes from if it comes from one."""
        name = reason.setting
        if name not in self.space:
            return reason
        return UserError(f"--search={name}: {reason}, in a line like {SEARCH.right(name)}")
