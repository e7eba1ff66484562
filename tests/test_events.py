import errno
import gc
import os
import struct

import pytest
from tensorboardX.proto import event_pb2

from fedvlr_jax.events import WithEvents
from tests.worlds import StopAfter


class Heard(StopAfter):
    def __init__(self):
        super().__init__(1)
        self.lines = []

    def evaluated(self, line):
        self.lines.append(line)


def events(folder):
    """Every event of every file, oldest file first (TFRecord: length, checksum, data, checksum)."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def scalars(folder):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
    ]


def line(number, score):
    return {"round": number, "train_loss": 0.5, "valid/ndcg@50": score, "valid/cold/hr@10": None}


def test_every_evaluation_is_written_at_its_round(tmp_path):
    heard = Heard()
    reporter = WithEvents(heard, tmp_path)
    reporter.begin(0, 4, "round")
    lines = [line(2, 10.0), line(4, 12.0)]
    for one in lines:
        reporter.evaluated(one)
    assert len(scalars(tmp_path / "events")) == 4  # at once, for those who look while it trains
    reporter.end()
    assert scalars(tmp_path / "events") == [
        (2, "train_loss", 0.5),
        (2, "valid/ndcg_50", 10.0),  # TensorBoard knows no @
        (4, "train_loss", 0.5),
        (4, "valid/ndcg_50", 12.0),
    ]
    assert heard.lines == lines
    reporter.advance(1)
    assert reporter.wants_stop()


def test_going_on_hides_later_rounds_of_an_earlier_file(tmp_path):
    for first in (2, 4):
        reporter = WithEvents(Heard(), tmp_path)
        reporter.evaluated(line(first, 1.0))
        reporter.end()
    starts = [e for e in events(tmp_path / "events") if e.session_log.status == 1]
    assert [e.step for e in starts] == [2, 4]


def test_nothing_evaluated_nothing_written(tmp_path):
    WithEvents(Heard(), tmp_path).end()
    assert not (tmp_path / "events").exists()


def test_a_round_without_a_loss_has_no_point(tmp_path):
    reporter = WithEvents(Heard(), tmp_path)
    for number, loss in ((2, 0.5), (4, None), (6, 0.25)):
        reporter.evaluated(line(number, 1.0) | {"train_loss": loss})
    reporter.end()
    written = [event for event in scalars(tmp_path / "events") if event[1] == "train_loss"]
    assert written == [(2, "train_loss", 0.5), (6, "train_loss", 0.25)]


# tensorboardX leaves its file to the garbage collector where the last wait is refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_wait_for_its_disk_has_them_too(code, tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    reporter = WithEvents(Heard(), tmp_path)
    reporter.evaluated({"round": 3, "train_loss": 0.5})
    reporter.end()
    assert [event.step for event in events(tmp_path / "events") if event.step] == [3, 3]
    gc.collect()  # while the warning is not heard
