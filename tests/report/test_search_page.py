import shlex

import matplotlib.image
import pandas as pd
import pytest
import yaml
from absl import flags

from experiments import cli, train
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.report import drawing, search_page, sections, sweep_page, tabulate
from fedvlr_jax.runs import declare, space
from fedvlr_jax.runs.space import Search
from fedvlr_jax.runs.trials import COMPLETE, FAILED, PRUNED, RUNNING, Outcome, Trial, ranked
from fedvlr_jax.settings import ANY, SEEDS

LINES = ("server_lr=log:1e-4:1e-1", "client_lr=log:1e-2:1e-1", "dropout=lin:0:0.5", "dim=8,16")
OUTCOMES = (
    Outcome(COMPLETE, 5.0, 10, 1.5),
    Outcome(FAILED, None, None, 0.0, "diverged, alas"),
    Outcome(COMPLETE, 7.25, 20, 1.5),
    Outcome(PRUNED, 9.0, 5, 0.5, "below"),
    Outcome(COMPLETE, 7.25, 15, 1.5),
    Outcome(RUNNING),
)


def search(seeds=(0,), **settings):
    return Search({"client_solver": "sgd"} | settings, space.read(LINES), seeds)


def trial(number, outcome):
    params = {
        "server_lr": 10.0 ** (-4 + number / 3),
        "client_lr": 0.01 * (1 + number),
        "dropout": number / 10,
        "dim": (8, 16)[number % 2],
    }
    return Trial(number, params, outcome)


TRIALS = [trial(number, outcome) for number, outcome in enumerate(OUTCOMES)]


def test_a_row_per_trial_that_has_ended(tmp_path):
    found = search_page.results(TRIALS[::-1], search().space)
    assert list(found) == [
        *("number", "state", "value", "server_lr", "client_lr", "dropout", "dim"),
        *("best_round", "seconds", "reason"),
    ]
    assert found["number"].tolist() == [0, 1, 2, 3, 4]
    path = tmp_path / "trials.csv"
    found.to_csv(path, index=False)
    read = pd.read_csv(path)
    assert read["best_round"].tolist()[2:] == [20, 5, 15]
    assert read["reason"][1] == "diverged, alas"
    assert search_page.results([], search().space).empty


def test_the_best_are_complete_and_the_earlier_first():
    assert [trial.number for trial in ranked(TRIALS)] == [2, 4, 0]
    shown = tabulate.as_text(search_page.best_table(TRIALS, search().space, 2))
    assert [line.split()[0] for line in shown.splitlines()] == ["trial", "2", "4"]
    assert "7.25" in shown
    assert "test" not in shown


def test_test_metrics_are_means_over_runs():
    def summary(x):
        return {"test": {f"warm/{m}@{k}": x * k for m in ("hr", "ndcg") for k in (10, 50)}}

    assert (
        search_page.test_line([summary(1.0)])
        == "hr@10 10.00  hr@50 50.00  ndcg@10 10.00  ndcg@50 50.00"
    )
    assert search_page.test_line([summary(1.0), summary(2.0)]).startswith(
        "hr@10 15.00 (7.07)  hr@50"
    )
    nobody = {"test": dict.fromkeys(summary(1.0)["test"])}
    assert search_page.test_line([nobody]).startswith("hr@10 --")


@pytest.mark.parametrize(
    "settings",
    [{}, {"rounds": 7, "clients": 50, "views": "sum,mlp", "local_epochs": 5, "delta": 1e-7}],
)
@pytest.mark.parametrize("seeds", [(0,), (3,), (0, 1)])
def test_the_best_settings_are_taken_as_they_are(tmp_path, settings, seeds):
    best = search(seeds, **settings)
    path, params = tmp_path / "best.yaml", TRIALS[2].params
    search_page.write_best(best, params, path)
    # By a sweep,
    file = declare.read(path, {"seeds": (int, SEEDS), "out": (str, ANY)})
    assert not file.axes
    assert file.settings["clients"] == settings.get("clients", 1000)
    wanted = list(best.runs(params).values())
    if len(seeds) > 1:
        assert file.others == {"seeds": len(seeds)}
        assert [Config.of(**file.settings, seed=seed) for seed in seeds] == wanted
    else:
        assert declare.configs(file.settings, {}) == wanted
    # and, as a command, by a single run.
    python, minus_m, module, *arguments = shlex.split(
        sweep_page.command(search_page.settings(best, params))
    )
    assert (python, minus_m, module) == ("python", "-m", "experiments.train")
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train", *arguments])
    assert Config.of(**cli.given_settings(values, leaves())) == wanted[0]


def test_what_is_said_is_short():
    found = search_page.settings(search(rounds=7), TRIALS[2].params)
    assert set(found) == {
        *("client_solver", "clients", "rounds", "server_lr", "client_lr", "dropout", "dim")
    }
    assert yaml.safe_load(yaml.safe_dump(found)) == found


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1], TRIALS[1:2]], ids=len)
def test_a_picture(tmp_path, trials):
    path = tmp_path / "search.png"
    drawing.write(search_page.chart(trials, search().space), path)
    drawn = matplotlib.image.imread(path)
    assert drawn.shape[0] > 500
    assert drawn.std() > 0.05


def test_the_best_one_and_the_best_so_far_are_marked():
    *_, over = search_page.chart(TRIALS, search().space).panels
    drawn = {series.name: (series.x, series.y) for series in over.series}
    assert drawn["best"] == ([2.0], [7.25])
    assert drawn["best so far"] == ([0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 7.25, 7.25, 7.25])
    assert drawn["failed"] == ([1.0], [5.0]), "at the lower edge"


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[1:2]], ids=len)
def test_a_page(trials):
    page = sections.page("Search", {}, search_page.sections(search(rounds=7), trials))
    assert ("The best by validation</h2>" in page) == (len(trials) > 1)
    assert "Every trial</h2>" in page
    assert "diverged, alas" in page


def test_trials_with_one_value_stand_side_by_side():
    places = search_page._places(space.Choice((8, 16)), "dim", TRIALS)
    assert len(set(places)) == len(TRIALS)
    assert [round(place) for place in places] == [0, 1, 0, 1, 0, 1]
