"""TensorBoard event files of a run's evaluations, beside metrics.jsonl."""

import math
from pathlib import Path

from tensorboardX import SummaryWriter

from fedvlr_jax.report import Reporter

FOLDER = "events"


class WithEvents:
    """A reporter that also writes every evaluation's numbers for TensorBoard.

    A run that is gone on with adds a file; what an earlier one holds of later rounds is hidden.

    Args:
        reporter: told as well.
        out: the run's folder; events are in `out/events/`.
    """

    def __init__(self, reporter: Reporter, out: Path) -> None:
        self._reporter, self._folder = reporter, out / FOLDER
        self._writer: SummaryWriter | None = None

    def note(self, sentence: str) -> None:
        """Pass on."""
        self._reporter.note(sentence)

    def begin(self, done: int, total: int, unit: str) -> None:
        """Pass on."""
        self._reporter.begin(done, total, unit)

    def advance(self, number: int) -> None:
        """Pass on."""
        self._reporter.advance(number)

    def evaluated(self, line: dict) -> None:
        """Write the numbers at their round, and pass on."""
        number = line["round"]
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=number)
        for name, value in line.items():
            if name != "round" and value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, number)
        self._writer.flush()
        self._reporter.evaluated(line)

    def end(self) -> None:
        """Close the file, and pass on."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._reporter.end()

    def wants_stop(self) -> bool:
        """What the other one wants."""
        return self._reporter.wants_stop()
