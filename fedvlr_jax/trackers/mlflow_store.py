"""MLflow, in a file of SQLite: `mlflow ui --backend-store-uri sqlite:///FILE` shows it.

MLflow's store of plain files takes no new runs in the versions that are supported here.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when it is imported

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fedvlr_jax.errors import UserError

_EXPERIMENT = "fedvlr_jax"
_FILE = "mlflow.db"
_TAG = "fedvlr_jax.id"
_MOST = 100  # params in a batch


class Store:
    """A run; see `tracked.Store`. A metric's name has _ for @, which MLflow does not take."""

    def __init__(self, folder: Path, identity: str, name: str, settings: Mapping[str, Any]) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
        logging.getLogger("alembic").setLevel(logging.WARNING)
        place = folder.resolve()
        try:
            self._client = MlflowClient(tracking_uri=f"sqlite:///{place / _FILE}")
            known = self._client.get_experiment_by_name(_EXPERIMENT)
            experiment = known.experiment_id if known else self._begin(place)
            query = f"tags.`{_TAG}` = '{identity}'"
            found = self._client.search_runs([experiment], query)
            run = (
                found[0]
                if found
                else self._client.create_run(experiment, run_name=name, tags={_TAG: identity})
            )
        except MlflowException as error:
            raise UserError(f"--tracker=mlflow: cannot begin ({error})") from None
        self._id, self._status = run.info.run_id, "KILLED"
        self._client.update_run(self._id, "RUNNING")
        # One that is gone on with may have more rounds, and a param has one value for ever.
        params = [Param(key, str(value)) for key, value in settings.items() if key != "rounds"]
        for first in range(0, len(params) if not found else 0, _MOST):
            self._client.log_batch(self._id, params=params[first : first + _MOST])
        self._client.set_tag(self._id, "rounds", str(settings.get("rounds")))

    def _begin(self, place: Path) -> str:
        return self._client.create_experiment(
            _EXPERIMENT, artifact_location=(place / "artifacts").as_uri()
        )

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """At the round as the step."""
        now = int(1000 * time.time())
        metrics = [Metric(k.replace("@", "_"), v, now, number) for k, v in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, number: int, values: Mapping[str, float]) -> None:
        """As metrics at the last round."""
        self.log(number, values)
        self._status = "FINISHED"

    def close(self) -> None:
        """Say whether it is finished."""
        self._client.set_terminated(self._id, self._status)
