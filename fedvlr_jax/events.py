"""TensorBoard event files of a run's evaluations, beside metrics.jsonl."""

import math
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from fedvlr_jax.files import where_supported
from fedvlr_jax.record import EVENTS
from fedvlr_jax.reporter import Reporter


class WithEvents:
    """A reporter that also writes every evaluation's numbers for TensorBoard.

    A run that is gone on with adds a file; what an earlier one holds of later rounds is hidden.

    Args:
        reporter: told as well.
        out: the run's folder; events are in `out/events/`.
    """

    def __init__(self, reporter: Reporter, out: Path) -> None:
        self._reporter, self._folder = reporter, out / EVENTS
        self.note, self.begin, self.advance = reporter.note, reporter.begin, reporter.advance
        self.wants_stop = reporter.wants_stop
        # Not the package's SummaryWriter, which writes some time later in a thread of its own.
        self._writer: EventsWriter | None = None

    def evaluated(self, line: dict) -> None:
        """Write the numbers at their round, and pass on."""
        number = line["round"]
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            # Files are named by the second; a suffix keeps those apart that begin in the same one.
            self._writer = EventsWriter(str(self._folder / "events"), f".round{number}")
            self._write(step=number, session_log=SessionLog(status=SessionLog.START))
        for name, value in line.items():
            if name != "round" and value is not None and math.isfinite(value):
                self._write(step=number, summary=scalar(name, value))
        with where_supported():  # of the disk: the numbers are with the system by then
            self._writer.flush()
        self._reporter.evaluated(line)

    def end(self) -> None:
        """Close the file, and pass on."""
        if self._writer is not None:
            with where_supported():
                self._writer.close()
            self._writer = None
        self._reporter.end()

    def _write(self, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **content))
