"""What mains that train many runs share: flags, this process's accelerators, what is said."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, interrupts, lists
from experiments.reporting import Nothing, Sentences
from fedvlr_jax.analysis import metrics
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.events import WithEvents
from fedvlr_jax.processes import accelerators, share
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.runs import declare, scheduler
from fedvlr_jax.runs.ledger import FINISHED, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.runs.study import Combination, Point, Study, points
from fedvlr_jax.settings import AT_LEAST_ZERO, SEEDS, setting
from fedvlr_jax.trackers.tracked import Tracked

SET_BY_STUDIES = ("server_lr", "client_lr", "seed", "cutoffs")
# What is searched where heads are solved and nothing else is asked for.
SOLVED = (
    "dim=32,64,128",
    "unobserved_weight=4,16",
    "head_penalty=2,4,8",
    "content_scale=0,0.3,1",
    "expert_weight=0,0.3,0.7",
    "neighbour_penalty=100,300",
    "server_lr=0,0.003,0.01",
)
_SECONDS_BETWEEN_REPORTS = 60.0


@dataclass(frozen=True)
class _Runs:
    together: int = setting(
        0,
        "Largest number of runs that one program trains at the same time. 0 means one on a "
        "CPU, and as many as the memory holds on an accelerator.",
        AT_LEAST_ZERO,
    )
    retry_failed: bool = setting(False, "Train the runs that have failed once more.")


def _rates(default: str, whose: str) -> str:
    return setting(
        default, f"Learning rates of {whose} to try, separated by commas; not with --search."
    )


@dataclass(frozen=True)
class _Studies:
    server_rates: str = _rates("0.0001,0.001,0.01,0.03,0.1", "the server")
    client_rates: str = _rates("0.01,0.03,0.1", "clients' heads")
    search: list[str] = setting(
        (),
        "A setting and the values to try, the same for every backbone and variant, like dim=32,64 "
        "or server_lr=log:1e-4:1e-1:4. Give the flag once for every setting. By default it is "
        f"{', '.join(SOLVED)} where heads are solved, beside the settings without a search, and "
        "learning rates elsewhere.",
    )
    trials: int = setting(
        24,
        "Largest number of combinations of values to try, but for learning rates, of which all are "
        "tried. If there are more, so many are drawn at random. 0 means all.",
        AT_LEAST_ZERO,
    )
    seeds: int = setting(3, "Number of seeds for every combination, counted from 0.", SEEDS)


# Flags: how runs are done, whatever they are; and those of studies.
RUNS = (_Runs, cli.Quiet, cli.Compiling)
STUDIES = (_Studies, *RUNS)


def solved_lines(given: Mapping[str, Any]) -> list[str]:
    """Lines of `SOLVED` that are not of a setting that is given."""
    return [line for line in SOLVED if line.split("=")[0] not in given]


def grids(
    values: flags.FlagValues, settings: Mapping[str, Any], combinations: Iterable[Combination]
) -> dict[Combination, tuple[Point, ...]]:
    """What a study searches for every combination.

    Args:
        values: of the flags.
        settings: that all runs share.
        combinations: to compare.

    Raises:
        UserError: a list that is no list of different positive numbers, a bad line, a setting that
            is searched and set, rates beside lines, or too many combinations.
    """
    rates = ("server_rates", "client_rates")
    if values.search:
        for name in rates:
            if values[name].present:
                raise UserError(
                    f"--{name}={values[name].value}: --search is given as well, expected a line "
                    f"like --search={name.replace('_rates', '_lr')}={values[name].value}"
                )
        searched = declare.axes(values.search, declare.STUDY)
        declare.STUDY.refuse_set(settings, list(searched))
        declare.check_number(declare.STUDY, searched, values.trials)
        return dict.fromkeys(combinations, points(searched, values.trials))
    searched = {
        name.replace("_rates", "_lr"): lists.positive_numbers(name, values[name].value)
        for name in rates
    }
    declare.check_number(declare.STUDY, searched)
    of_steps = points(searched)
    of_solutions = points(declare.axes(solved_lines(settings), declare.STUDY), values.trials)
    found = {}
    for one in combinations:
        own = {"backbone": one.backbone, "variant": one.variant}
        usual = Config.of(**settings | own).flat()
        found[one] = of_steps
        if usual["client_solver"] == "exact":
            # What is drawn may all be worse than what nobody has to ask for.
            first = tuple((name, usual[name]) for name, _ in of_solutions[0])
            tried = tuple(dict.fromkeys((first, *of_solutions)))
            found[one] = tried[: values.trials or None]
    if of_steps not in found.values():
        for name in rates:
            if values[name].present:
                raise UserError(
                    f"--{name}={values[name].value}: has no effect on heads that are solved, "
                    "expected --client_solver=sgd with it, or --search"
                )
    return found


def execute(
    planner: Planner,
    out: Path,
    values: flags.FlagValues,
    display: scheduler.Listener,
    renew: Callable[[Mapping[str, Row]], object],
    devices: int,
    with_events: bool = True,
) -> dict[str, Row]:
    """Do all that a planner wants, with this process's share of the accelerators.

    Args:
        planner: says what is wanted.
        out: folder of all runs.
        values: of the flags.
        display: shows how runs go on; with --quiet nothing does.
        renew: takes how runs have ended, after some have, and writes what is made of them.
        devices: that every run is to have, 0 for all.
        with_events: whether runs write events for TensorBoard.

    Returns:
        How every run ended, by name.
    """
    display, trackers = Nothing() if values.quiet else display, cli.trackers(values)
    shown = _Shown(display, renew, out if with_events else None, trackers)
    for variable, names in take_share(devices).items():
        shown.note(f"this process has {variable}={names}")
    try:
        return scheduler.execute(planner, out, shown, values.together, values.retry_failed)
    finally:
        for left in shown.tracked.values():
            left.close()


def take_share(devices: int) -> dict[str, str]:
    """Take accelerators that no other process of this machine has; what was set for that."""
    return share.take(devices, share.visible(accelerators.startable()))


@dataclass(frozen=True)
class _Shown:
    """Has runs shown, their events written below `out`, and what is made of them renewed.

    `tracked` are those that go on, where there are trackers.
    """

    display: scheduler.Listener
    renew: Callable[[Mapping[str, Row]], object]
    out: Path | None
    trackers: Sequence[str] = ()
    tracked: dict[str, Tracked] = field(default_factory=dict)

    def note(self, sentence: str) -> None:
        """Show a sentence."""
        self.display.note(sentence)

    def reporter(self, run: str, plan: Plan) -> Reporter:
        """What shows a run."""
        shown = self.display.reporter(run, plan)
        if self.out is None:
            return shown
        shown, folder = WithEvents(shown, self.out / plan.folder), self.out / plan.folder
        if self.trackers:
            # A run that is tried once more, alone, may have begun with others.
            if (before := self.tracked.pop(run, None)) is not None:
                before.close()
            shown = self.tracked[run] = Tracked(shown, folder, self.trackers)
        return shown

    def ended(self, run: str, row: Row) -> None:
        """Show it."""
        interrupts.defer(False)  # whatever it has ended by
        if (kept := self.tracked.pop(run, None)) is not None:
            if row.status == FINISHED:
                kept.finish(row.content)
            kept.close()
        self.display.ended(run, row)

    def known(self, rows: Mapping[str, Row]) -> None:
        """Show it, and write it."""
        self.display.known(rows)
        self.renew(rows)


class Seldom:
    """Whether to draw again: that takes as long as a small run.

    Args:
        seconds: from one time to the next.
    """

    def __init__(self, seconds: float = _SECONDS_BETWEEN_REPORTS) -> None:
        self._seconds, self._last = seconds, -math.inf

    def is_due(self, whole: bool) -> bool:
        """Whether it is time to, as it is where there is nothing more to come (`whole`)."""
        now = time.monotonic()
        if not whole and now - self._last <= self._seconds:
            return False
        self._last = now
        return True


class StudyLines(Sentences):
    """Prints a line for every run of a study."""

    def ended(self, run: str, row: Row) -> None:
        """Print its score, or why it has none."""
        if row.status == FINISHED:
            valid = row.content["valid"]
            score = metrics.selection_score(valid)
            self.note(f"{run}: valid {metrics.selection(valid)} {score:.2f}")
        else:
            self.note(f"{run}: {row.content['reason']}")


def why_nothing(study: Study, combination: Combination, rows: Mapping[str, Row]) -> str:
    """What to say of a combination that was searched, and came to nothing."""
    reasons = (rows[run].content.get("reason") for run in study.searched(combination))
    reason = next(filter(None, reasons), "no run finished")
    return f"{combination.name}: fails at all that was searched, at the first because of: {reason}"
