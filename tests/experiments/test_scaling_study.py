import json
import re

import matplotlib.image
import pytest

from experiments import scaling_study
from fedvlr_jax.runs import scheduler
from tests.experiments import programs
from tests.report import browser

SMALL = (
    "--client_solver=sgd",
    *("--items=40", "--dim=8", "--local_epochs=1", "--negatives=1", "--rounds=3"),
    *("--devices=1", "--buckets=1", "--history_length=6", "--eval_clients=15", "--cohort=15"),
)


def study(capsys, out, *arguments):
    return programs.in_process(scaling_study, capsys, *SMALL, *arguments, f"--out={out}")


def test_a_study_is_interrupted_and_gone_on_with(tmp_path, capsys, monkeypatch):
    out, begun = tmp_path / "study", []
    train, most = scheduler.train_together, 3

    def counted(configs, outs, *others):
        begun.extend(outs)
        if len(begun) > most:
            raise KeyboardInterrupt
        return train(configs, outs, *others)

    monkeypatch.setattr(scheduler, "train_together", counted)
    command = ("--clients=10,20", "--seeds=2", "--sweep=server_lr=0.1,0.2")
    code, _, complaint = study(capsys, out, *command)
    assert code == 130
    assert "the same command goes on" in complaint
    assert len(list(out.rglob("summary.json"))) == 3
    most = 100
    code, said, complaint = study(capsys, out, *command)
    assert (code, complaint) == (0, "")
    assert len(begun) == 3 + 1 + 5
    # Every quantity at both rates.
    assert sum(name in said for name in ("Time per round (server_lr 0.1)", "0.2)")) == 2
    told = json.loads((out / "study.json").read_text())
    assert len(told["rows"]) == 2 * 2 * 2
    assert {row["clients"] for row in told["rows"]} == {10, 20}
    # Every number of clients and every seed has a population, the same at both rates.
    assert len({row["data_seed"] for row in told["rows"]}) == 2 * 2
    assert len(told["fits"]) == 4 * 2
    for fit in told["fits"]:
        assert (fit["n_runs"], fit["n_censored"]) == (4, 0)
    assert matplotlib.image.imread(out / "scaling.png").shape[0] > 500
    # More seeds, and another target: what was trained is not trained again.
    target = "--target=valid/ndcg@50:99"
    code, said, _ = study(capsys, out, *command[:1], "--seeds=3", command[2], target)
    assert code == 0
    assert len(begun) == 3 + 1 + 5 + 4
    assert said.splitlines()[0].startswith("[5/12] clients=10,server_lr=0.1,seed=2")
    told = json.loads((out / "study.json").read_text())
    assert {fit["n_censored"] for fit in told["fits"] if "target" in fit["quantity"]} == {6}
    text, console = browser.opened(out / "report.html", tmp_path / "browser")
    assert console == []
    assert text.count('class="plot js-plotly-plot"') == 4


def test_one_population_is_shared_where_its_seed_is_given():
    values = {}
    for flag in ((), ("--data_seed=3",)):
        flags = programs_flags("--clients=10,5000", "--seeds=2", "--cohort=100", *flag)
        runs, axes, own = scaling_study.declared(flags)
        assert list(axes) == ["clients", "seed"]
        values[own] = {config.data.data_seed for config in runs.values()}
        # A cohort, and a sample of evaluated clients, are of clients that there are.
        first, *_, last = runs.values()
        assert (first.method.cohort, last.method.cohort) == (10, 100)
        assert (first.schedule.eval_clients, last.schedule.eval_clients) == (10, 2000)
        assert last.schedule.eval_every == 1
    assert (len(values[True]), values[False]) == (4, {3})


def programs_flags(*arguments):
    values = scaling_study.cli.defined(scaling_study.define_flags)
    values(["scaling_study", *arguments])
    return values


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--clients=100", "--clients=100: one number of clients shows no trend, expected at least"),
        ("--seeds=1", "--seeds=1: expected a whole number from 2 to 10000"),
        ("--target=best", "--target=best: expected a metric of the validation split"),
        ("--target=", "--target=: expected a metric of the validation split"),
        ("--sweep=seed=1,2", "--sweep=seed: is not swept by this study, expected --seeds"),
        ("--sweep=data=a,b", "--sweep=data: is not swept by this study"),
        ("--sweep=dim=8,16", "--dim=8: dim is swept as well"),
        ("--data=data/KU", "--data: unknown flag"),
        ("--sweep=variant=all", "--variant=all: expected one of"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(tmp_path, capsys, flag, sentence):
    code, _, complaint = study(capsys, tmp_path / "study", flag)
    assert code == 2
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_default_that_is_swept_is_no_setting():
    runs, _, _ = scaling_study.declared(programs_flags("--sweep=rounds=3,4", "--clients=10,20"))
    assert {config.schedule.rounds for config in runs.values()} == {3, 4}


def test_help(capsys):
    code, said, _ = programs.in_process(scaling_study, capsys, "--help")
    assert code == 0
    for name in ("clients", "sweep", "seeds", "target", "rounds", "eval_every", "out"):
        assert re.search(rf"^  --{name}: ", said, re.MULTILINE)
