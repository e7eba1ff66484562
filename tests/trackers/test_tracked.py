"""What trackers are told of runs, by one that keeps it in memory."""

import json

import pytest

from experiments import sweep, train
from fedvlr_jax.errors import UserError
from fedvlr_jax.reporter import Silent
from fedvlr_jax.trackers import tracked
from fedvlr_jax.trackers.tracked import Tracked
from tests.experiments import programs

SMALL = (
    *("--clients=20", "--items=20", "--eval_every=1", "--dim=4", "--quiet"),
    *("--client_solver=sgd", "--warm_start=none", "--variant=id"),
)


class Heard:
    """A store that remembers what all of its kind were told."""

    told: list

    def __init__(self, _, identity, name, settings):
        self.name, self.identity = name, identity
        self.told.append(("opened", name, identity, settings["dim"]))

    def log(self, number, values):
        self.told.append(("log", self.name, number, values["valid/hr@50"]))

    def finish(self, number, values):
        self.told.append(("finish", self.name, number, values["test/hr@50"]))

    def close(self):
        self.told.append(("closed", self.name))


@pytest.fixture
def told(monkeypatch):
    """What stores hear, in order."""
    monkeypatch.setattr(Heard, "told", [], raising=False)
    monkeypatch.setattr(tracked, "opener", lambda _: Heard)
    return Heard.told


def steps(told, kind="log"):
    return [event[2] for event in told if event[0] == kind]


def line(number):
    return {"round": number, "train_loss": None, "valid/hr@50": float("nan")} | {
        "valid/hr@50": 1.0 * number,
        "valid/warm/ndcg@50": 2.0,
    }


def write_lines(out, *numbers):
    (out / "config.json").write_text('{"dim": 4}')
    text = "".join(json.dumps(line(number)) + "\n" for number in numbers)
    (out / "metrics.jsonl").write_text(text)


def test_every_evaluation_is_told_once(told, tmp_path):
    heard = []

    class Passed(Silent):
        def evaluated(self, line):
            heard.append(line["round"])

    # Evaluations before there was a tracker, then two with one, then a run that went back to 4.
    write_lines(tmp_path, 2, 4)
    first = Tracked(Passed(), tmp_path, ["wandb"])
    first.evaluated(line(4))
    first.evaluated(line(6))
    first.close()
    write_lines(tmp_path, 2, 4, 6)
    again = Tracked(Passed(), tmp_path, ["wandb"])
    again.evaluated(line(6))
    again.evaluated(line(8))
    again.close()
    assert steps(told) == [2, 4, 6, 8]
    assert heard == [4, 6, 6, 8]
    assert len({event[2] for event in told if event[0] == "opened"}) == 1  # one identity


def test_a_run_that_is_finished_is_not_told_again(told, tmp_path):
    write_lines(tmp_path, 2)
    summary = {"rounds_done": 2, "best_round": 2, "test": {"hr@50": 3.0, "cold/hr@50": None}}
    for _ in range(2):
        kept = Tracked(Silent(), tmp_path, ["mlflow"])
        kept.finish(summary)
        kept.close()
    assert [event[0] for event in told] == ["opened", "log", "finish", "closed"]


def test_nothing_is_opened_before_there_is_something_to_tell(told, tmp_path):
    Tracked(Silent(), tmp_path, ["wandb"]).close()
    assert told == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", tracked.NAMES)
def test_a_package_that_is_missing_is_a_sentence(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(tracked._MODULES, name, "fedvlr_jax.trackers.nowhere")
    with pytest.raises(UserError, match=rf"{name} is not installed, .*fedvlr_jax\[{name}\]"):
        Tracked(Silent(), tmp_path, [name])
    for program in (train, sweep):
        out = f"--out={tmp_path / 'run'}"
        code, _, said = programs.in_process(program, capsys, f"--tracker={name}", out)
        assert code == 2
        assert said.startswith(f"error: --tracker={name}: the package {name} is not installed")
        assert not (tmp_path / "run").exists()


def test_a_tracker_that_nobody_knows_is_a_sentence(capsys):
    code, _, said = programs.in_process(train, capsys, "--tracker=wandb,comet")
    assert code == 2
    assert said == "error: --tracker=wandb,comet: expected names from wandb, mlflow\n"


def test_training_tells_and_goes_on(told, capsys, tmp_path):
    out = tmp_path / "run"
    for rounds in (2, 3, 3):
        code, *_ = programs.in_process(
            train, capsys, *SMALL, f"--rounds={rounds}", "--tracker=wandb", f"--out={out}"
        )
        assert not code
    assert steps(told) == [1, 2, 3]
    assert steps(told, "finish") == [2, 3]
    summary = json.loads((out / "summary.json").read_text())
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    assert told[-2] == ("finish", "run", 3, summary["test"]["hr@50"])
    logged = [event[3] for event in told if event[0] == "log"]
    assert logged == [one["valid/hr@50"] for one in lines]


def test_every_run_of_a_sweep_is_told(told, capsys, tmp_path):
    flags = [flag for flag in SMALL if flag != "--clients=20"]
    code, *_ = programs.in_process(
        sweep,
        capsys,
        *(*flags, "--clients=20,25", "--rounds=2", "--tracker=mlflow", f"--out={tmp_path}"),
    )
    assert not code
    for name in ("clients=20,seed=0", "clients=25,seed=0"):
        own = [event for event in told if event[1] == name]
        assert [event[0] for event in own] == ["opened", "log", "log", "finish", "closed"]
        assert (tmp_path / "runs" / name / "mlflow" / "logged.json").is_file()
