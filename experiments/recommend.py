"""Look at one user: python -m experiments.recommend --run=runs/shop --user=7"""

from dataclasses import dataclass
from pathlib import Path

from absl import flags

from experiments import cli
from fedvlr_jax.analysis.recommendation import Recommendation, Shown, recommend
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import printable
from fedvlr_jax.report import shell
from fedvlr_jax.report.user_page import card, outcome, planted
from fedvlr_jax.settings import AT_LEAST_ONE, AT_LEAST_ZERO, FILE, FOLDER, setting

USAGE = """
    usage: python -m experiments.recommend --run=DIR --user=ID [--top=N] [--out=FILE]

    Prints a user's history, what a finished run recommends, and how the user's router weighs the
    views; writes the same with pictures as one HTML page.
"""

_HISTORY = 10  # items of the history that are printed
_BAR = 40  # characters


@dataclass(frozen=True)
class _Own:
    run: Path | None = setting(None, "Folder of a finished run.", FOLDER)
    user: int | None = setting(
        None, "The user's id in the data set (column userID).", AT_LEAST_ZERO
    )
    original_user: str | None = setting(
        None, "The user's id in the raw data (as in users.csv), instead of --user."
    )
    top: int = setting(
        10,
        "Number of items to recommend, at most as many as the run has ranked: 50, or the largest K "
        "of its --cutoffs if that is more.",
        AT_LEAST_ONE,
    )
    data: Path | None = setting(
        None, "Folder of the data set, if it has moved since the run.", FOLDER
    )
    plugins: str | None = setting(
        None, "Python modules that have the run's plugins, if they have moved since the run."
    )
    out: Path | None = setting(
        None, "HTML file to write. The default is user-ID.html in the run's folder.", FILE
    )


def define_flags(into: flags.FlagValues) -> None:
    """Define the flags."""
    cli.define(into, _Own)


def main(values: flags.FlagValues) -> None:
    """Print and write one user's card."""
    if values.run is None:
        raise UserError("--run: missing, expected the folder of a finished run")
    if values.out is not None:
        shell.check_place(values.out)
    shown = recommend(
        values.run, values.user, values.original_user, values.top, values.data, values.plugins
    )
    out = values.out or values.run / f"user-{shown.user}.html"
    shell.write(out, card(shown))
    pictures = (
        "" if shown.folder else " (without pictures: none are known, or their folder is gone)"
    )
    for line in (*lines(shown), f"written to {out}{pictures}"):
        print(printable(line))


def lines(shown: Recommendation) -> list[str]:
    """The recommendation as text."""
    name = f" ({shown.name})" if shown.name else ""
    newest = shown.history[:_HISTORY]
    more = len(shown.history) - len(newest)
    width = max(len(view) for view in shown.weights)
    return [
        f"user {shown.user}{name}",
        f"history, {len(shown.history)} train items, the newest first:",
        *(f"      {item.title}" for item in newest),
        *([f"      and {more} older ones"] if more else []),
        "recommended:",
        *(f"  {k:>2}. {_line(item)}" for k, item in enumerate(shown.top, 1)),
        outcome(shown),
        "view weights:",
        *(
            f"  {view:<{width}}  {'█' * round(_BAR * weight):<{_BAR}} {100 * weight:3.0f} %"
            for view, weight in shown.weights.items()
        ),
        *([planted(shown)] if shown.preference else []),
    ]


def _line(item: Shown) -> str:
    return item.title + (f"  <- its {item.held_out} item" if item.held_out else "")


if __name__ == "__main__":
    cli.run(main, cli.defined(define_flags), USAGE)
