import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.sweep.store import FAILED, FINISHED, Row, Store

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "name", ["report.html", "results.csv", "scaling.png", "trials.csv", "search.png", "best.yaml"]
)
def test_files_of_somebody_else_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"^--out={tmp_path}: holds {name} and no sweep"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    Store(tmp_path / "new")
    (tmp_path / "new" / name).write_text("the sweep's")
    Store(tmp_path / "new")


def test_the_last_attempt_counts(tmp_path):
    store = Store(tmp_path)
    store.add("a", Row(FAILED, {"dim": 8}, {"reason": "nan"}))
    store.add("b", Row(FINISHED, {"dim": 8}, {"score": 0.1}))
    store.add("a", Row(FINISHED, {"dim": 8}, {"score": 1 / 3}))
    assert Store(tmp_path).rows() == {
        "b": Row(FINISHED, {"dim": 8}, {"score": 0.1}),
        "a": Row(FINISHED, {"dim": 8}, {"score": 1 / 3}),
    }


def test_groups_are_written_once(tmp_path):
    store = Store(tmp_path)
    store.add_groups([["b", "a"], ["c"]])
    store.add_groups([["a", "d"], ["e"]])  # of another process that listed them before
    assert sorted(store.groups()) == [["b", "a"], ["c"], ["e"]]
    store.part(["b", "a"])
    assert sorted(store.groups()) == [["a"], ["b"], ["c"], ["e"]]


def test_a_claim_is_for_one_and_ends_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import time
                from pathlib import Path
                from fedvlr_jax.sweep.store import Store
                with Store(Path({str(tmp_path)!r})).claimed("a") as mine:
                    print(mine, flush=True)
                    time.sleep(600)
            """),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert holder.stdout.readline() == "True\n"
        store = Store(tmp_path)
        with store.claimed("a") as mine, store.claimed("b") as other:
            assert (mine, other) == (False, True)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with store.claimed("a") as mine:
        assert mine


def _add_many(folder, name):
    store = Store(folder)
    for number in range(25):
        store.add(f"{name}{number}", Row(FINISHED, {}, {"number": number}))


def test_processes_add_at_the_same_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_add_many, args=(tmp_path, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    rows = Store(tmp_path).rows()
    assert len(rows) == 75
    assert rows["y7"].content == {"number": 7}


def test_a_folder_that_is_none_or_a_damaged_database(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path / "file" / "x")
    (tmp_path / "runs.sqlite").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"runs.sqlite: cannot be used"):
        Store(tmp_path)
