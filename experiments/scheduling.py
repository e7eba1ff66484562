"""What mains that train many runs share: flags, this process's accelerators, what is told."""

from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags

from experiments import cli, interrupts, lists
from experiments.reporting import Display, Quiet
from fedvlr_jax.analysis import metrics
from fedvlr_jax.events import WithEvents
from fedvlr_jax.processes import accelerators, share
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.runs import scheduler
from fedvlr_jax.runs.ledger import FINISHED, Row
from fedvlr_jax.runs.scheduler import Plan, Planner
from fedvlr_jax.runs.study import Combination, RateGrid, Study
from fedvlr_jax.settings import AT_LEAST_ZERO, SEEDS

SET_BY_STUDIES = ("server_lr", "client_lr", "seed")


def define_flags(into: flags.FlagValues) -> None:
    """Define how runs are done, whatever they are."""
    cli.define_number(
        into,
        "together",
        0,
        "Largest number of runs that one program trains at the same time. 0 means one on a "
        "CPU, and as many as the memory holds on an accelerator.",
        AT_LEAST_ZERO,
    )
    flags.DEFINE_boolean(
        "retry_failed", False, "Train the runs that have failed once more.", flag_values=into
    )
    cli.define_quiet(into)
    cli.define_compilation_cache(into)


def define_study_flags(into: flags.FlagValues) -> None:
    """Define --server_rates, --client_rates and --seeds, and how runs are done."""
    for name, rates, whose in (
        ("server_rates", RateGrid().server, "the server"),
        ("client_rates", RateGrid().client, "clients' heads"),
    ):
        text = f"Learning rates of {whose} to try, separated by commas."
        default = ",".join(f"{rate:g}" for rate in rates)
        flags.DEFINE_string(name, default, text, flag_values=into)
    cli.define_number(
        into, "seeds", 3, "Number of seeds for every combination, counted from 0.", SEEDS
    )
    define_flags(into)


def rate_grid(values: flags.FlagValues) -> RateGrid:
    """The rates to try.

    Raises:
        UserError: a list that is no list of different positive numbers.
    """
    return RateGrid(
        *(
            lists.positive_numbers(flag, values[flag].value)
            for flag in ("server_rates", "client_rates")
        )
    )


def execute(
    planner: Planner, out: Path, values: flags.FlagValues, told: scheduler.Told, devices: int
) -> dict[str, Row]:
    """Do all that a planner wants, with this process's share of the accelerators.

    Args:
        planner: says what is wanted.
        out: folder of all runs.
        values: of the flags.
        told: hears how it goes on.
        devices: that every run is to have, 0 for all.

    Returns:
        How every run ended, by name.
    """
    for variable, names in take_share(devices).items():
        told.note(f"this process has {variable}={names}")
    return scheduler.execute(planner, out, told, values.together, values.retry_failed)


def take_share(devices: int) -> dict[str, str]:
    """Take accelerators that no other process of this machine has; what was set for that."""
    return share.take(devices, share.visible(accelerators.startable()))


class Shown:
    """Shows on a display how runs go on, and writes their events for TensorBoard."""

    def __init__(self, display: Display, out: Path) -> None:
        self.display, self.out = display, out

    def note(self, sentence: str) -> None:
        """Show a sentence."""
        self.display.note(sentence)

    def reporter(self, run: str, plan: Plan) -> Reporter:
        """What shows a run."""
        shown = self.display.reporter(run, plan.config.schedule.rounds)
        return WithEvents(shown, self.out / plan.folder)

    def ended(self, run: str, row: Row) -> None:
        """Show it."""
        interrupts.defer(False)  # whatever it has ended by
        self.display.ended(run, row)

    def known(self, rows: Mapping[str, Row]) -> None:
        """Show it."""
        self.display.known(rows)


class StudyLines:
    """Prints a line for every run of a study, and has what is written of it renewed.

    Args:
        quiet: whether nothing is printed.
        renew: takes how runs have ended.
    """

    def __init__(self, quiet: bool, renew: Callable[[Mapping[str, Row]], None]) -> None:
        self._quiet, self._renew = quiet, renew

    def note(self, sentence: str) -> None:
        """Print it."""
        if not self._quiet:
            cli.tell(sentence)

    def reporter(self, run: str, plan: Plan) -> Reporter:  # noqa: ARG002
        """One that only stops after Ctrl-C."""
        return Quiet()

    def ended(self, run: str, row: Row) -> None:
        """Print its score, or why it has none."""
        interrupts.defer(False)
        if row.status == FINISHED:
            score = metrics.selection_score(row.content["valid"])
            self.note(f"{run}: valid {metrics.SELECTION} {score:.2f}")
        else:
            self.note(f"{run}: {row.content['reason']}")

    def known(self, rows: Mapping[str, Row]) -> None:
        """Renew what is written."""
        self._renew(rows)


def why_nothing(study: Study, combination: Combination, rows: Mapping[str, Row]) -> str:
    """What to say of a combination that was searched, and came to nothing."""
    reasons = (rows[run].content.get("reason") for run in study.searched(combination))
    reason = next(filter(None, reasons), "no run finished")
    return f"{combination.name}: fails at all learning rates, at the first because of: {reason}"
