"""Weights & Biases, offline: `wandb sync` sends a run later, if somebody wants that."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when it is imported

import wandb

from fedvlr_jax.errors import UserError


class Store:
    """A run; see `tracked.Store`. Every start adds a folder `offline-run-...` with the same id."""

    def __init__(self, folder: Path, identity: str, name: str, settings: Mapping[str, Any]) -> None:
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_stats=True,
        )
        # Folders are named by the second: a second one in the same would write over the first.
        while list(folder.glob(f"offline-run-{time.strftime('%Y%m%d_%H%M%S')}-{identity}")):
            time.sleep(0.1)
        try:
            self._run = wandb.init(
                project="fedvlr_jax",
                dir=str(folder.parent),  # it makes a folder `wandb` there
                id=identity,
                name=name,
                config=dict(settings),
                mode="offline",
                reinit="create_new",  # runs that train together
                settings=quiet,
            )
        except wandb.Error as error:
            raise UserError(f"--tracker=wandb: cannot begin ({error})") from None

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """At the round as the step."""
        self._run.log(dict(values), step=number, commit=True)

    def finish(self, number: int, values: Mapping[str, float]) -> None:  # noqa: ARG002
        """In the run's summary."""
        self._run.summary.update(dict(values))

    def close(self) -> None:
        """Wait until it is on disk."""
        self._run.finish()
