"""What it takes to reach an accuracy: rounds, client updates, bytes and seconds to a target.

A target is a validation metric and a value, `valid/warm/ndcg@50:12.5`, or a share of the best value
that any of the runs compared has reached, `valid/warm/ndcg@50:0.9max`. Validation, not test: it is
known in every evaluated round, and nothing of the test split is looked at to stop a run.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fedvlr_jax.names import METRIC_GROUPS, METRICS

Run = TypeVar("Run", bound=Hashable)  # what tells runs apart
_FORM = re.compile(
    rf"(?P<metric>valid/(?:{'|'.join(METRIC_GROUPS)})(?:{'|'.join(METRICS)})@[1-9]\d{{0,8}})"
    r":(?P<value>[^:]+?)(?P<relative>max)?"
)
EXPECTED = (
    "a metric of the validation split and a value in percent, like valid/warm/ndcg@50:12.5, or a "
    "share of the best value of all runs, like valid/warm/ndcg@50:0.9max; metrics are valid/, "
    f"then warm/, cold/ or nothing, then {', '.join(f'{name}@K' for name in METRICS)}, K being one "
    "of --cutoffs"
)
# What a target may cost, by its column in metrics.jsonl.
COSTS = (
    "round",
    "client_updates",
    "download_bytes",
    "upload_bytes",
    "seconds",
    "simulated_seconds",
)


@dataclass(frozen=True)
class Target:
    """A value that a metric should reach; `relative` where it is a share of the best one."""

    metric: str
    value: float
    relative: bool = False

    @property
    def cutoff(self) -> int:
        """The metric's K."""
        return int(self.metric.rpartition("@")[2])

    def goal(self, best: float | None) -> float | None:
        """The value in percent, given the best one of all runs compared, None if there is none."""
        if not self.relative:
            return self.value
        return None if best is None else self.value * best

    def best(self, lines: Sequence[Mapping[str, Any]]) -> float | None:
        """The best value in a run's lines of metrics.jsonl, None if nobody was evaluated."""
        values = [float(line[self.metric]) for line in _measured(lines, self.metric)]
        return max(values, default=None)

    def costs_of(
        self, curves: Mapping[Run, Sequence[Mapping[str, Any]]]
    ) -> dict[Run, dict[str, Any]]:
        """The `costs` of several runs, a share being one of the best value of them all.

        Args:
            curves: the lines of every run's metrics.jsonl.
        """
        known = [best for lines in curves.values() if (best := self.best(lines)) is not None]
        goal = self.goal(max(known, default=None))
        return {run: costs(self, lines, goal) for run, lines in curves.items()}

    def is_reached(self, line: Mapping[str, Any]) -> bool:
        """Whether an evaluation has the value, which is not relative."""
        value = line.get(self.metric)
        return not self.relative and value is not None and value >= self.value


def parsed(text: str) -> Target | None:
    """The target that a text like `valid/warm/ndcg@50:0.9max` names, None if it names none.

    Example:
        >>> parsed("valid/warm/ndcg@50:0.9max")
        Target(metric='valid/warm/ndcg@50', value=0.9, relative=True)
        >>> parsed("test/ndcg@50:3"), parsed("valid/ndcg@50:101"), parsed("valid/ndcg@50:2max")
        (None, None, None)
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    try:
        value = float(found["value"])
    except ValueError:
        return None
    relative = found["relative"] is not None
    most = 1.0 if relative else 100.0
    return Target(found["metric"], value, relative) if 0 < value <= most else None


def costs(
    target: Target, lines: Sequence[Mapping[str, Any]], goal: float | None
) -> dict[str, float | bool | None]:
    """What a run took to reach a goal: `reached`, and `COSTS`, None where it was not reached.

    Costs are those of the first evaluation that has the value: rounds between two evaluations are
    not looked at, so a run may have been there up to `--eval_every` rounds before. Of a run that
    did not get there it is only known that it takes more than what was spent (`spent/...`).

    Args:
        target: names the metric.
        lines: of the run's metrics.jsonl, in order.
        goal: the value in percent.
    """
    measured = _measured(lines, target.metric)
    there = next(
        (line for line in measured if goal is not None and line[target.metric] >= goal), {}
    )
    found: dict[str, Any] = {"goal": goal, "reached": bool(there)}
    found |= {name: there.get(name) for name in COSTS}
    return found | {f"spent/{name}": lines[-1].get(name) if lines else None for name in COSTS}


def _measured(lines: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    values = ((line, line.get(metric)) for line in lines)
    return [line for line, value in values if value is not None and math.isfinite(value)]
