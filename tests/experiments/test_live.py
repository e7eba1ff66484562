import io
import signal
import time

import pytest
from rich.console import Console

from experiments import interrupts, live
from fedvlr_jax.config import Config
from fedvlr_jax.runs.ledger import Row

RUNS = {f"clients={c}": Config.of(clients=c, rounds=10) for c in (100, 200, 300)}
DONE = Row("finished", {}, {"rounds_done": 10, "valid": {"warm/ndcg@50": 12.345}})
FAILED = Row("failed", {}, {"reason": "out of memory"})


@pytest.fixture
def board():
    return live.Board(RUNS, Console(file=io.StringIO(), force_terminal=True, width=100))


def shown(board):
    """What the table looks like now, without colours."""
    console = Console(file=io.StringIO(), width=100)
    console.print(board)
    return console.file.getvalue()


def line_of(board, run):
    return next(line for line in shown(board).splitlines() if line.startswith(run))


def test_a_run_moves_on(board):
    reporter = board.reporter("clients=200", 10)
    reporter.begin(4, 10, "round")
    assert "4/10" in line_of(board, "clients=200")
    assert "--" in line_of(board, "clients=200")  # no pace yet
    time.sleep(0.02)
    reporter.advance(6)
    reporter.evaluated({"round": 6, "valid/warm/ndcg@50": 9.876})
    line = line_of(board, "clients=200")
    assert "6/10" in line
    assert "9.88" in line
    assert line.rstrip().endswith("0:00")
    assert "0 of 3 runs done; about 0:0" in shown(board)


def test_runs_that_train_together_move_together(board):
    first, second = (board.reporter(f"clients={c}", 10) for c in (100, 200))
    first.begin(0, 10, "round")
    first.advance(3)
    second.evaluated({"round": 3, "valid/warm/ndcg@50": None})
    assert "3/10" in line_of(board, "clients=100")
    assert "3/10" in line_of(board, "clients=200")


def test_ends_are_counted_and_failures_told(board):
    board.known({})
    board.reporter("clients=100", 10)
    board.ended("clients=100", DONE)
    board.reporter("clients=200", 10)
    board.ended("clients=200", FAILED)
    text = shown(board)
    assert "12.35" in line_of(board, "clients=100")
    assert "failed" in line_of(board, "clients=200")
    assert "2 of 3 runs done, 1 failed" in text


def test_what_was_done_before_counts_and_is_not_listed(board):
    board.known({"clients=300": DONE})
    text = shown(board)
    assert "clients=300" not in text
    assert "1 of 3 runs done" in text


def test_ctrl_c_is_seen(board, monkeypatch):
    monkeypatch.setattr(interrupts, "_asked", 0)  # whatever an earlier test has asked for
    reporter = board.reporter("clients=100", 10)
    assert not reporter.wants_stop()
    monkeypatch.setattr(interrupts, "_asked", signal.SIGINT)
    assert reporter.wants_stop()
    assert "stopping after this round" in shown(board)


def test_a_terminal_is_left_in_order(board):
    with board:
        board.reporter("clients=100", 10).note("a sentence")
    written = board.console.file.getvalue()
    assert "clients=100: a sentence" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back
