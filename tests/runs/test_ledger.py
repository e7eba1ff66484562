import errno
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.runs.ledger import FAILED, FINISHED, Ledger, Row

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "name", ["report.html", "results.csv", "scaling.png", "trials.csv", "search.png", "best.yaml"]
)
def test_files_of_somebody_else_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"^--out={tmp_path}: holds {name}, but no sweep"):
        Ledger(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    Ledger(tmp_path / "new")
    (tmp_path / "new" / name).write_text("the sweep's")
    Ledger(tmp_path / "new")


def test_the_last_attempt_counts(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("a", Row(FAILED, {"dim": 8}, {"reason": "nan"}))
    ledger.add("b", Row(FINISHED, {"dim": 8}, {"score": 0.1}))
    ledger.add("a", Row(FINISHED, {"dim": 8}, {"score": 1 / 3}))
    assert Ledger(tmp_path).rows() == {
        "b": Row(FINISHED, {"dim": 8}, {"score": 0.1}),
        "a": Row(FINISHED, {"dim": 8}, {"score": 1 / 3}),
    }


def test_groups_are_written_once(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add_groups([["b", "a"], ["c"]])
    ledger.add_groups([["a", "d"], ["e"]])  # of another process that listed them before
    assert sorted(ledger.groups()) == [["b", "a"], ["c"], ["e"]]
    ledger.ungroup(["b", "a"])
    assert sorted(ledger.groups()) == [["a"], ["b"], ["c"], ["e"]]


def test_a_claim_is_for_one_and_ends_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import time
                from pathlib import Path
                from fedvlr_jax.runs.ledger import Ledger
                with Ledger(Path({str(tmp_path)!r})).claimed("a") as mine:
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
        ledger = Ledger(tmp_path)
        with ledger.claimed("a") as mine, ledger.claimed("b") as other:
            assert (mine, other) == (False, True)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with ledger.claimed("a") as mine:
        assert mine


def _add_many(folder, name):
    ledger = Ledger(folder)
    for number in range(25):
        ledger.add(f"{name}{number}", Row(FINISHED, {}, {"number": number}))


def test_processes_add_at_the_same_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_add_many, args=(tmp_path, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    rows = Ledger(tmp_path).rows()
    assert len(rows) == 75
    assert rows["y7"].content == {"number": 7}


def test_a_folder_that_is_none_or_a_damaged_database(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, expected a folder"):
        Ledger(tmp_path / "file" / "x")
    (tmp_path / "runs.sqlite").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"runs.sqlite: cannot be used"):
        Ledger(tmp_path)


GOOD = ("a", 1, FINISHED, '{"rounds": 2}', '{"best_round": 2}')
EDITED = [
    {"status": "running"},
    {"status": "\x1b[2J"},
    {"status": 7},
    {"status": b"finished"},
    {"settings": "{"},
    {"settings": "[" * 20_000},
    {"settings": "[]"},
    {"settings": b"\x00"},
    {"content": "null"},
    {"content": '{"best_round": ' + "9" * 5_000 + "}"},
    {"content": '{"best_round": "two"}'},
    {"content": '{"test": 3}'},
    {"content": '{"test": {"warm/ndcg@50": "high"}}'},
    {"content": '{"timing": {"round_seconds_median": []}}'},
    {"status": FAILED, "content": "{}"},
    {"status": FAILED, "content": '{"reason": 3}'},
    {"run": b"a"},
]


@pytest.mark.parametrize("edit", EDITED, ids=range(len(EDITED)))
def test_an_edited_row_is_refused_with_file_and_run(tmp_path, edit):
    ledger = Ledger(tmp_path)
    row = dict(zip(("run", "attempt", "status", "settings", "content"), GOOD, strict=True)) | edit
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        database.execute("INSERT INTO attempts VALUES (?, ?, ?, ?, ?)", tuple(row.values()))
    database.close()
    with pytest.raises(UserError, match=r"runs\.sqlite, run .*a") as refusal:
        ledger.rows()
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE attempts",
        "ALTER TABLE attempts RENAME COLUMN status TO state",
        "INSERT INTO attempts VALUES ('a', 1, 'finished', '{}', CAST(x'ff' AS TEXT))",
        "INSERT INTO attempts VALUES ('a', 1, 'finished', '{}', zeroblob(100000000))",
        "DROP TABLE groups",
        "INSERT INTO groups VALUES ('a', x'00', 1)",
        "INSERT INTO groups VALUES (x'00', 'a', 1)",
        "ALTER TABLE groups DROP COLUMN first",
        "PRAGMA writable_schema=1",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE' WHERE name = 'groups'",
    ],
    ids=range(10),
)
def test_an_edited_database_is_refused_or_read(tmp_path, statement):
    ledger = Ledger(tmp_path)
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        database.execute("PRAGMA writable_schema=1")
        database.execute(statement)
    database.close()
    if statement.startswith("PRAGMA"):  # changes nothing
        assert (ledger.rows(), ledger.groups()) == ({}, [])
        return
    with pytest.raises(UserError, match=r"runs\.sqlite"):
        _ = ledger.rows(), ledger.groups()


def test_what_is_no_database_or_no_claim(tmp_path):
    for make in (os.mkfifo, os.mkdir):
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder / "runs.sqlite")
        with pytest.raises(UserError, match=r"runs\.sqlite: is a (pipe|folder)"):
            Ledger(folder)
        ledger = Ledger(tmp_path / f"{make.__name__}-claims")
        make(tmp_path / f"{make.__name__}-claims" / "claims" / "a")
        with (
            pytest.raises(UserError, match=r"claims/a: is a (pipe|folder), expected a plain file"),
            ledger.claimed("a"),
        ):
            pass
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "claims").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Ledger(tmp_path / "x")


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL]
)
@pytest.mark.parametrize("function", ["fcntl.flock", "fcntl.lockf"])
def test_a_sweep_works_where_there_are_no_locks(tmp_path, monkeypatch, function, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    assert Ledger(tmp_path / "other").has_locks
    monkeypatch.setattr(function, refuse)
    ledger = Ledger(tmp_path)
    assert not ledger.has_locks
    with ledger.claimed("a") as mine, ledger.alone():
        assert mine
        ledger.add("a", Row(FINISHED, {"dim": 8}, {"best_round": 1}))
    assert list(Ledger(tmp_path).rows()) == ["a"]


def test_a_disk_that_takes_no_more_is_told_as_such(tmp_path):
    ledger = Ledger(tmp_path)
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.close()
    connect = sqlite3.connect

    def small(*args, **kwargs):
        made = connect(*args, **kwargs)
        made.execute(f"PRAGMA max_page_count={pages}")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(UnwritableError, match=r"cannot be used \(database or disk"):
            ledger.add("a", Row(FAILED, {}, {"reason": "x" * 10**5}))
    assert ledger.rows() == {}
    ledger.add("a", Row(FAILED, {}, {"reason": json.dumps("x" * 10**5)}))
