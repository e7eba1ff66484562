import functools
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from experiments import paper
from fedvlr_jax.study import central
from tests.experiments import programs

SMALL = (
    "--client_solver=sgd",
    *("--clients=30", "--items=30", "--dim=8", "--local_epochs=1", "--negatives=1", "--rounds=2"),
    *("--eval_every=1", "--devices=1", "--buckets=1", "--server_rates=0.1", "--client_rates=0.1"),
)


@pytest.fixture
def _short_references(monkeypatch):
    """Centralized references that hardly learn."""
    monkeypatch.setattr(central, "references", functools.partial(central.references, epochs=20))


@pytest.mark.usefixtures("_short_references")
def test_a_study_writes_its_tables_and_is_not_done_twice(tmp_path, capsys):
    out = tmp_path / "paper"
    arguments = (*SMALL, "--backbones=fcf", "--variants=mlp,fedvlr", "--seeds=2", f"--out={out}")
    arguments += ("--noises=", "--newcomers=0", "--noablations")
    code, said, complaint = programs.in_process(paper, capsys, *arguments)
    assert (code, complaint) == (0, "")
    assert said.count("valid warm/ndcg@50") == 4 + 6 + 1  # and the head of the table
    read = tables_of(out)
    assert set(read) == {
        *("data", "accuracy", "parameters", "significance", "communication", "curves"),
        *("reliance", "history_length", "item_popularity", "references"),
    }
    assert set(read["references"]["minus"]) == set(read["accuracy"]["recommender"][2:])
    assert read["references"]["variant"].unique().tolist() == ["fedvlr"]
    assert read["accuracy"]["recommender"].tolist() == [
        *("fcf", "fcf", "popularity", "ItemKNN", "content-kNN", "EASE", "iALS", "VBPR")
    ]
    assert read["accuracy"]["warm/ndcg@50 sd"].notna().sum() == 2
    assert read["significance"]["backbone"].tolist() == ["fcf"]
    private = read["parameters"].set_index("variant")["private"]
    assert private["fedvlr"] > private["mlp"]
    assert {p.stem for p in (out / "figures").iterdir()} == {
        *("accuracy", "curves", "reliance", "history_length", "item_popularity")
    }
    page = (out / "report.html").read_text()
    # Accuracy, curves, two by group, and three of reliance.
    assert page.count('class="plot"') == 7
    assert "experiments.paper" in page
    assert "precision of products" in page
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("summary.json")}
    assert len(stamps) == 4
    code, said, _ = programs.in_process(paper, capsys, *arguments)
    assert code == 0
    assert "EASE penalty" not in said, "references are kept"
    assert {p: p.stat().st_mtime_ns for p in out.rglob("summary.json")} == stamps


@pytest.mark.slow
@pytest.mark.usefixtures("_short_references")
def test_a_whole_study_trains_again_with_what_changes(tmp_path, capsys):
    out = tmp_path / "paper"
    arguments = (*SMALL, "--backbones=fcf", "--variants=fedvlr", "--seeds=1", f"--out={out}")
    code, _, complaint = programs.in_process(
        paper, capsys, *arguments, "--noises=0.5", "--newcomers=0.3"
    )
    assert (code, complaint) == (0, "")
    read = tables_of(out)
    assert "significance" not in read, "there is nothing to compare with"
    assert read["removal"]["removed"].tolist() == ["nothing", "image", "text", "id"]
    assert read["noise"]["noise"].tolist() == [0, 0.5]
    assert read["newcomers"]["epochs"].tolist()[0] == 0
    assert {p.name for p in (out / "runs").iterdir()} == {
        "fcf-fedvlr",
        *(f"fcf-fedvlr-{x}" for x in ("without-image", "without-text", "without-id", "noise0.5")),
    }
    views = {
        name: json.loads(
            next((out / "runs" / f"fcf-fedvlr-without-{name}").rglob("summary.json")).read_text()
        )["composition"]
        for name in ("image", "id")
    }
    assert set(views["image"]) == {"text", "id"}
    assert set(views["id"]) == {"image", "text"}
    assert (out / "report.html").read_text().count('class="plot"') == 9
    assert len(list((out / "figures").iterdir())) == 7


def tables_of(out):
    return {p.stem: pd.read_csv(p) for p in (out / "tables").glob("*.csv")}


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--backbones=fedavg,x", "--backbones=fedavg,x: expected names from fedavg, fcf"),
        ("--variants=id,id", "--variants=id,id: a value is named twice"),
        ("--server_rates=0.1,a", "--server_rates=0.1,a: expected different numbers above 0"),
        ("--noises=0.1,0.1", "--noises=0.1,0.1: expected different numbers above 0"),
        (
            "--newcomers=0.01",
            "a share of 0.01 newcomers among 30 clients: expected one that leaves",
        ),
        ("--eval_clients=5", "--eval_clients=5: every seed has a sample of its own"),
        ("--cohort=31", "--cohort=31: expected at most the 30 clients there are"),
        ("--cohort=30", "--cohort=30: expected at most the 24 clients there are"),
        ("--devices=99", "--devices=99: expected at most the 8 devices JAX sees"),
        ("--modalities=image", "--modalities=image: the view id needs id"),
        ("--views=x", "--views=x: expected names"),
        ("--client_rates=0", "--client_rates=0: expected different numbers above 0"),
        (
            "--search=dim=8,16",
            "--server_rates=0.1: --search is given as well, expected a line like",
        ),
        ("--seeds=0", "--seeds=0: expected a whole number from 1 to 10000"),
        ("--backbone=fcf", "--backbone: unknown flag"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(tmp_path, capsys, flag, sentence):
    out = tmp_path / "paper"
    others = [small for small in SMALL if small.split("=")[0] != flag.split("=")[0]]
    code, _, complaint = programs.in_process(paper, capsys, *others, flag, f"--out={out}")
    assert code == 2
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not out.exists()


@pytest.mark.usefixtures("_short_references")
def test_other_settings_are_searched_for(tmp_path, capsys):
    out = tmp_path / "paper"
    small = [setting for setting in SMALL if "rates" not in setting]
    arguments = [*small, "--backbones=fcf", "--variants=id", "--seeds=1", f"--out={out}"]
    arguments += ["--newcomers=0", "--noises=", "--search=router_lr=0,1", "--trials=3"]
    arguments += ["--search=client_lr=0.1,0.3"]
    code, _, complaint = programs.in_process(paper, capsys, *arguments, "--search=dim=4,8")
    assert code == 2
    assert "--dim=8: dim is searched as well, expected one of the two" in complaint
    code, said, complaint = programs.in_process(paper, capsys, *arguments)
    assert (code, complaint) == (0, "")
    assert said.count("fcf-id/router_lr=") == 3
    chosen = tables_of(out)["accuracy"].iloc[0]
    assert chosen["router_lr"] in (0, 1)
    assert chosen["client_lr"] in (0.1, 0.3)


STUDY = (
    "experiments.paper",
    "--client_solver=sgd",
    *("--clients=60", "--items=40", "--dim=8", "--local_epochs=1", "--negatives=1", "--rounds=6"),
    *("--eval_every=2", "--devices=1", "--server_rates=0.03,0.1", "--client_rates=0.1,3e38"),
    *("--backbones=fcf,fedrap", "--variants=fedvlr,mlp", "--seeds=2", "--newcomers=0.3"),
    "--noises=0.5",
)
KILLS = 10


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The tables of a study that nothing has interrupted, and its output."""
    out = tmp_path_factory.mktemp("calm") / "paper"
    done = programs.run(*STUDY, f"--out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    return tables_of(out), done.stdout


def check_equal(out, calm):
    """Tables but for what is measured are the same; no run was lost or done twice."""
    tables, _ = calm
    again = tables_of(out)
    assert set(again) == set(tables)
    for name, table in tables.items():
        measured = [c for c in table if "second" in c]
        pd.testing.assert_frame_equal(
            again[name].drop(columns=measured), table.drop(columns=measured)
        )


@pytest.mark.slow
def test_a_study_that_is_killed_at_random_moments_ends_the_same(tmp_path, calm):
    rng, kills = np.random.default_rng(0), 0
    out = tmp_path / "paper"
    while kills < KILLS:
        process = subprocess.Popen(
            [sys.executable, "-m", *STUDY, f"--out={out}"],
            cwd=programs.ROOT,
            env=programs.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(rng.uniform(4, 20))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:  # done before it could be killed: a new one
            check_equal(out, calm)
            out = tmp_path / f"paper{kills}"
    done = programs.run(*STUDY, f"--out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    check_equal(out, calm)


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path, calm):
    out = tmp_path / "paper"
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: programs.run(*STUDY, f"--out={out}"), range(2)))
    assert [(done.returncode, done.stderr) for done in both] == [(0, "")] * 2
    # Each run is told of by the process that did it.
    told = [
        [line.split(":")[0] for line in text.splitlines() if line.split("/")[0] in NAMES]
        for text in (calm[1], *(done.stdout for done in both))
    ]
    assert told[1]
    assert told[2]
    assert sorted(told[1] + told[2]) == sorted(told[0])
    check_equal(out, calm)


NAMES = {
    f"{backbone}-{variant}{change}"
    for backbone in ("fcf", "fedrap")
    for variant in ("fedvlr", "mlp")
    for change in ("", "-members", "-noise0.5", "-without-image", "-without-text", "-without-id")
}
"""Of combinations, and of what is changed in them."""
