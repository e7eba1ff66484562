"""What a search has found: a table of its trials, the best ones, and their settings."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fedvlr_jax import files
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.search.space import Search, Space
from fedvlr_jax.search.trials import Trial, ended, ranked

MEASURED = "seconds"  # the column that another day would fill differently
# These a sweep and a single run take other values of where nothing is said.
_ALWAYS_SAID = ("clients", "rounds")


def results(trials: Sequence[Trial], space: Space) -> pd.DataFrame:
    """A row per trial that has ended: number, state, value, a column per searched setting, rest.

    Columns are those of `trials.Outcome`, in its units.
    """
    columns = ["number", "state", "value", *space, "best_round", MEASURED, "reason"]
    rows = [
        {"number": trial.number, **vars(trial.outcome), **trial.params} for trial in ended(trials)
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"best_round": "Int64"})


def best_table(trials: Sequence[Trial], space: Space, number: int) -> str:
    """The best trials for a terminal, at most `number` of them: by validation alone."""
    rows = [
        {
            "trial": trial.number,
            **{name: trial.params[name] for name in space},
            "valid NDCG@50 %": trial.outcome.value,
            "best round": trial.outcome.best_round,
        }
        for trial in ranked(trials)[:number]
    ]
    return pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:,.4g}")


def test_line(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Test metrics of warm clients in percent, the mean and standard deviation over runs.

    Args:
        summaries: of the runs of one trial, as in summary.json.
    """
    parts = []
    for name in ("hr@10", "hr@50", "ndcg@10", "ndcg@50"):
        values = [summary["test"][f"warm/{name}"] for summary in summaries]
        if None in values:
            parts.append(f"{name} --")
            continue
        spread = f" ({np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
        parts.append(f"{name} {np.mean(values):.2f}{spread}")
    return "  ".join(parts)


def settings(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial's first run: those given, those searched, and no other default.

    Args:
        search: that the trial is of.
        params: the trial's.
    """
    flat, default = search.config(params).flat(), Config.of().flat()
    said = {*_ALWAYS_SAID, *search.settings, *search.space}
    return {
        name: flat[name]
        for name in leaves()
        if flat[name] is not None and (name in said or flat[name] != default[name])
    }


def write_best(search: Search, params: Mapping[str, Any], path: Path) -> None:
    """Write a trial's settings as YAML that `experiments.sweep --config` takes."""
    found = settings(search, params)
    seeds = search.seeds
    if seeds is not None and len(seeds) > 1:
        found = {name: value for name, value in found.items() if name != "seed"}
        found["seeds"] = len(seeds)
    files.write_text(path, yaml.safe_dump(found, sort_keys=False))


def command(search: Search, params: Mapping[str, Any]) -> str:
    """The command line that trains a trial's first run again."""
    flags = [f"--{name}={value}" for name, value in settings(search, params).items()]
    return shlex.join(["python", "-m", "experiments.train", *flags])
