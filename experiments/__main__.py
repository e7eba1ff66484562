"""All programs under one name: fedvlr train --data=data/KU"""

import difflib
import runpy
import sys

from absl import flags

from experiments import cli
from fedvlr_jax.errors import UserError

PROGRAMS = {
    "train": "train one federation",
    "sweep": "train with every combination of settings, and report what they change",
    "scaling-study": "tell how time, cost and accuracy change with the number of clients",
    "search": "find the settings with the best validation score",
    "compare": "compare the results of two sweeps",
    "recommend": "show what a finished run recommends to one user",
    "prepare": "make a data set from raw files, titles and pictures",
    "paper": "make the paper's whole comparison on one data set",
    "preference-recovery": "test whether routers find the preferences of generated clients",
}
HELP = """
    usage: fedvlr COMMAND [--FLAG=VALUE ...]

    Commands:
{}

    `fedvlr COMMAND --help` explains a command and its flags.
""".format("\n".join(f"      {name:<20} {does}" for name, does in PROGRAMS.items()))


def main() -> None:
    """Run the program that the command line names, as `python -m experiments.NAME` does."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name.replace("_", "-") not in PROGRAMS:
        sys.argv = [sys.argv[0], name]
        cli.run(_refuse, flags.FlagValues(), HELP, ("COMMAND",))
        return
    sys.argv = [sys.argv[0], *rest]
    module = f"experiments.{name.replace('-', '_')}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _refuse(_: flags.FlagValues, name: str) -> None:
    close = difflib.get_close_matches(name, PROGRAMS, n=1)
    like = f", like {close[0]}" if close else ""
    raise UserError(f"{name}: unknown command, expected one that `fedvlr --help` lists{like}")


if __name__ == "__main__":
    main()
