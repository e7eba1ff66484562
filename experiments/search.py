"""Search settings by validation: python -m experiments.search --search=server_lr=log:1e-4:1e-1"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from experiments import cli, scheduling
from experiments.reporting import Progress, Sentences, facts
from fedvlr_jax import files, record
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import drawing, search_page, sections, sweep_page, tabulate
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.runs import space
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.scheduler import Plan
from fedvlr_jax.runs.space import Search
from fedvlr_jax.runs.trials import COMPLETE, RUNNING, Searching, Trial, ended, ranked
from fedvlr_jax.settings import AT_LEAST_ONE, AT_LEAST_ZERO, SEED, SEEDS, setting

USAGE = """
    usage: python -m experiments.search [--search=SETTING=VALUES ...] [--trials=N] [--seeds=N]
                                        [--out=DIR] ...

    Looks for the values with the best validation score (warm NDCG@50 of the best round), and writes
    report.html (open it in a browser), trials.csv (a row per trial), search.png and best.yaml into
    --out. VALUES are all numbers between two, log:1e-4:1e-1 or lin:0:0.5, or a list
    (dim=32,64,128). Every other flag holds for all trials. Run the same command again to go on
    after an interruption, or at the same time to share the work; give a larger --trials to go on
    after the end.
"""

_SHOWN = 5  # trials in the table at the end


@dataclass(frozen=True)
class _Own:
    search: list[str] = setting(
        (),
        "A setting and the values to try, like server_lr=log:1e-4:1e-1, dropout=lin:0:0.5 "
        "or dim=32,64,128. Give the flag once for every setting. By default it is "
        f"{', '.join(scheduling.SOLVED)} where heads are solved.",
    )
    trials: int = setting(
        40, "Number of trials, including those that are pruned or fail.", AT_LEAST_ONE
    )
    seeds: int | None = setting(
        None,
        "Number of seeds that every trial trains with, counted from 0. The score of a "
        "trial is the mean over them. The default is one seed, --seed.",
        SEEDS,
    )
    prune_from: int | None = setting(
        None,
        "Number of rounds before a trial may be pruned. The default is a quarter of --rounds.",
        AT_LEAST_ZERO,
    )
    search_seed: int = setting(0, "Seed of the choice of the values to try.", SEED)


def define_flags(into: flags.FlagValues) -> None:
    """Define a flag for every setting, and the search's own."""
    cli.define_settings(into, leaves())
    cli.define(into, _Own, cli.Tracking, *scheduling.RUNS)
    cli.define_path(into, "out", "runs/search", "Folder of the search.")


def main(values: flags.FlagValues) -> None:
    """Do what is left of the search, and renew what is written of it after every trial."""
    search, out = declared(values), values.out
    planner = Searching(search, values.trials)
    display, report = _Lines(planner, values.trials), _Report(planner, values.trials, out)
    devices = search.first().execution.devices
    rows = scheduling.execute(planner, out, values, display, report.renew, devices)
    trials = planner.trials(rows)
    best = next(iter(ranked(trials)), None)
    if best is None:
        reason = trials[-1].outcome.reason
        raise UserError(f"--out={out}: no trial is complete, the last one because of: {reason}")
    print(f"the best by validation, of {len(trials)} trials:")
    print(tabulate.as_text(search_page.best_table(trials, search.space, _SHOWN, search.cutoff)))
    folders = planner.folders(best.params)
    summaries = [record.summary(folder, ("test",)) for folder in folders]
    print(
        f"test of trial {best.number}, warm clients, in percent: {search_page.test_line(summaries)}"
    )
    again = sweep_page.command(search_page.settings(search, best.params))
    print(f"its run is in {folders[0]}; to train it anew:\n{again}")
    print(f"written to {out}: trials.csv, search.png, report.html, best.yaml, runs/")


def declared(values: flags.FlagValues) -> Search:
    """The search that flags declare.

    Raises:
        UserError: a bad setting or line, or seeds that are given twice.
    """
    given = cli.given_settings(values, leaves())
    lines = values.search
    if not lines and Config.of(**given).method.client_solver == "exact":
        lines = scheduling.solved_lines(given)
    searched = space.read(lines)
    space.SEARCH.refuse_set(given, list(searched))
    if values.seeds is not None and ("seed" in given or "seed" in searched):
        raise UserError(f"--seeds={values.seeds}: seeds are given as well, expected one of the two")
    if "seed" in searched:
        seeds = None
    elif values.seeds is not None:
        seeds = tuple(range(values.seeds))
    else:
        seeds = (given.pop("seed", leaves()["seed"].default),)
    search = Search(given, searched, seeds, values.search_seed)
    if (prune_from := values.prune_from) is None:
        prune_from = search.first().schedule.rounds // 4
    return dataclasses.replace(search, prune_from=prune_from)


class _Lines(Sentences):
    """Prints which values are tried, how their runs go on, and what they come to."""

    def __init__(self, planner: Searching, number: int) -> None:
        self._planner, self._number = planner, number
        self._rows: dict[str, Row] = {}

    def reporter(self, run: str, plan: Plan) -> Reporter:  # noqa: ARG002
        """Say which values are tried; then put the trial before every line of its run."""
        trial = self._trial(run)
        first, *others = self._planner.search.runs(trial.params)
        if run == first:
            tried = ", ".join(f"{name} {value}" for name, value in trial.params.items())
            self.note(f"trial {trial.number} of {self._number}: {tried}")
        seed = f" {run.rpartition(',')[2]}" if others else ""
        return Progress(f"trial {trial.number}{seed}")

    def ended(self, run: str, row: Row) -> None:
        """Say what the trial came to, if it was its last run."""
        self._rows[run] = row
        trial = self._trial(run)
        outcome = trial.outcome
        if outcome.state == COMPLETE:
            valid = f"valid NDCG@{self._planner.search.cutoff} {outcome.value:.2f}"
            self.note(f"trial {trial.number} {COMPLETE}: {valid}, best round {outcome.best_round}")
        elif outcome.state != RUNNING:
            self.note(f"trial {trial.number} {outcome.state}: {outcome.reason}")

    def known(self, rows: Mapping[str, Row]) -> None:
        """Remember how runs have ended."""
        self._rows = dict(rows)

    def _trial(self, run: str) -> Trial:
        return self._planner.trials(self._rows)[self._planner.number_of(run)]


class _Report:
    """What is written of a search: tables after every trial, now and then a picture and a page."""

    def __init__(self, planner: Searching, number: int, out: Path) -> None:
        self._planner, self._number, self._out = planner, number, out
        self._seldom = scheduling.Seldom()

    def renew(self, rows: Mapping[str, Row]) -> None:
        """Write what is known by now."""
        search, trials = self._planner.search, self._planner.trials(rows)
        files.write_table(self._out / "trials.csv", search_page.results(trials, search.space))
        for best in ranked(trials)[:1]:
            search_page.write_best(search, best.params, self._out / "best.yaml")
        done = ended(trials)
        if done and self._seldom.is_due(whole=len(done) >= self._number):
            chart = search_page.chart(trials, search.space, search.cutoff)
            drawing.write(chart, self._out / "search.png")
            counts = Counter(trial.outcome.state for trial in done)
            made = facts(
                "search",
                trials=", ".join(f"{number} {state}" for state, number in counts.items()),
                searched="; ".join(f"{name} {values}" for name, values in search.space.items()),
            )
            page = sections.page(
                f"Search {self._out.name}", made, search_page.sections(search, trials)
            )
            files.write_text(self._out / "report.html", page)


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
