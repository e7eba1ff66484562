"""A reporter that keeps what a run has measured in trackers, in the run's folder."""

import importlib
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fedvlr_jax import files, record
from fedvlr_jax.errors import UserError
from fedvlr_jax.reporter import Reporter

# By the name of the package that is needed, which is that of the extra, too.
_MODULES = {
    "wandb": "fedvlr_jax.trackers.weights_and_biases",
    "mlflow": "fedvlr_jax.trackers.mlflow_store",
}
NAMES = tuple(_MODULES)
_STATE = "logged.json"  # in the tracker's folder: what it has been told of the run


@runtime_checkable
class Store(Protocol):
    """Takes what one run has measured; nothing of it leaves the machine."""

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """The numbers of an evaluation after round `number`."""

    def finish(self, number: int, values: Mapping[str, float]) -> None:
        """The results of the run, which has done `number` rounds."""

    def close(self) -> None:
        """Write all that was told. The run may be gone on with later."""


# Opens a run's record, or goes on with it: the folder to write into, the run's identity, which is
# the same when it is gone on with, its name for people, and its settings.
Opener = Callable[[Path, str, str, Mapping[str, Any]], Store]


def opener(name: str) -> Opener:
    """What opens the store of a tracker.

    Args:
        name: one of `NAMES`.

    Raises:
        UserError: its package is not installed.
    """
    try:
        return importlib.import_module(_MODULES[name]).Store
    except ImportError:
        raise UserError(
            f"--tracker={name}: the package {name} is not installed, expected "
            f"pip install 'fedvlr_jax[{name}]', or '.[{name}]' in a checkout"
        ) from None


class Tracked:
    """A reporter whose run is kept in trackers as well.

    Every evaluation is told once, also where a run is gone on with, or was begun without trackers.

    Args:
        reporter: told as well.
        out: the run's folder; a tracker writes into the folder of its name below it.
        names: of trackers.

    Raises:
        UserError: the package of one is not installed.
    """

    def __init__(self, reporter: Reporter, out: Path, names: Sequence[str]) -> None:
        self._reporter = reporter
        self.note, self.begin, self.advance = reporter.note, reporter.begin, reporter.advance
        self.end, self.wants_stop = reporter.end, reporter.wants_stop
        self._records = [_Record(opener(name), out, name) for name in names]

    def evaluated(self, line: dict) -> None:
        """Tell the trackers, and pass on."""
        for kept in self._records:
            kept.evaluated(line)
        self._reporter.evaluated(line)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tell the trackers what the run has come to, the content of summary.json."""
        for kept in self._records:
            kept.finish(summary)

    def close(self) -> None:
        """Training stops, or has ended without a result."""
        for kept in self._records:
            kept.close()


class _Record:
    """What one tracker has of a run."""

    def __init__(self, opened: Opener, out: Path, name: str) -> None:
        self._opener, self._out, self._folder = opened, out, out / name
        self._store: Store | None = None

    def evaluated(self, line: Mapping[str, Any]) -> None:
        """Log an evaluation, and those before it that were not."""
        self._open()
        self._log(line)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the results, unless that was done, and close."""
        done = summary["rounds_done"]
        if self._state().get("finished") != done:
            opened = self._open()
            values = {f"test/{name}": value for name, value in summary["test"].items()}
            opened.finish(done, _numbers(values | {"best_round": summary["best_round"]}))
            self._write(finished=done)
        self.close()

    def close(self) -> None:
        """Close the store, if it is open."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open(self) -> Store:
        if self._store is None:
            self._folder.mkdir(exist_ok=True)
            state = self._write()
            settings = record.settings(self._out)
            self._store = self._opener(
                self._folder, state["id"], self._out.resolve().name, settings
            )
            for line in record.evaluations(self._out):
                self._log(line)
        return self._store

    def _log(self, line: Mapping[str, Any]) -> None:
        number = line["round"]
        if number > self._state()["round"]:
            self._store.log(number, _numbers(line))
            self._write(round=number)

    def _state(self) -> dict[str, Any]:
        path = self._folder / _STATE
        return files.read_json(path) if path.exists() else {"id": uuid.uuid4().hex[:8], "round": 0}

    def _write(self, **changed: Any) -> dict[str, Any]:
        state = self._state() | changed
        files.write_json(self._folder / _STATE, state)
        return state


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """What a line has of finite numbers, but for its round."""
    return {
        name: float(value)
        for name, value in line.items()
        if name != "round" and value is not None and math.isfinite(value)
    }
