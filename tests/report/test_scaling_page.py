"""A study of the number of clients: costs of runs, laws, a page that says what its file does."""

import json
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from fedvlr_jax import files, targets
from fedvlr_jax.analysis import trends
from fedvlr_jax.report import drawing, scaling_page, scaling_results, sections
from fedvlr_jax.report.scaling_results import ACCURACY, BYTES, ROUNDS, SIMULATED, TIME
from fedvlr_jax.runs import declare
from fedvlr_jax.runs.ledger import Row

METRIC = "valid/warm/ndcg@50"
TARGET = f"{METRIC}:8"


def line(number, value, simulated=None):
    """An evaluation after so many rounds, each of 100 bytes down and 10 up."""
    costs = {
        "client_updates": 5 * number,
        "download_bytes": 100 * number,
        "upload_bytes": 10.0 * number,
        "seconds": 0.5 * number,
    }
    if simulated is not None:
        costs["simulated_seconds"] = simulated
    return {"round": number, METRIC: value, **costs}


class Study:
    """A folder as a study of finished runs leaves it, and what is made of it.

    Args:
        out: the folder.
        lines: of --sweep, with clients first.
        evaluations: takes a configuration and gives its evaluations.
        seconds: takes a configuration and gives the seconds of a round.
    """

    def __init__(self, out, lines, evaluations, seconds, target=TARGET, fail=()):
        self.out, self.axes, self.target = out, declare.axes([*lines, "seed=0,1,2"]), target
        self.runs = declare.runs({"rounds": 30}, self.axes)
        self.rows = {}
        out.mkdir(exist_ok=True)
        for name, config in self.runs.items():
            if name in fail:
                self.rows[name] = Row("failed", config.flat(), {"reason": "diverged"})
                continue
            folder = out / "runs" / name
            folder.mkdir(parents=True)
            measured = evaluations(config)
            files.write_lines(folder / "metrics.jsonl", measured)
            rng = np.random.default_rng([config.data.clients, config.schedule.seed])
            users = 50
            # More clients, more of them have their item first.
            first = rng.random(users) < 0.1 + 0.1 * np.log10(config.data.clients)
            ranks = np.where(first, 0, 99)
            files.write_arrays(folder / "per_user.npz", user=np.arange(users), rank=ranks)
            summary = {"timing": {"round_seconds_median": seconds(config)}, "best_round": 2}
            self.rows[name] = Row("finished", config.flat(), summary | {"rounds_done": 30})

    @property
    def table(self):
        parsed = targets.parsed(self.target)
        return scaling_results.table(self.rows, self.runs, self.axes, self.out, parsed)

    @property
    def fits(self):
        return scaling_results.fits(self.table, self.axes, own_populations=True)

    @property
    def told(self):
        """Sections, and study.json as it is read."""
        study = scaling_results.study(self.fits, self.table, self.target)
        files.write_json(self.out / "study.json", study)
        parts = scaling_page.sections(self.fits, self.table, self.axes, self.target, ["so it is"])
        return parts, json.loads((self.out / "study.json").read_text())


def rounds_of(config):
    """Between 4 and some tens of rounds, more with more clients."""
    rng = np.random.default_rng([config.data.clients, config.schedule.seed])
    return int(np.round(4 * (config.data.clients / 10) ** 0.3 * np.exp(rng.normal(0, 0.1))))


def until(number, last=30):
    return [line(k, 9.0 if k >= number else 5.0) for k in range(1, last + 1)]


def seconds_of(config):
    rng = np.random.default_rng([config.data.clients, config.schedule.seed, 1])
    return 0.01 * config.data.clients * np.exp(rng.normal(0, 0.05))


SIZES = "clients=10,100,1000"


def of(fits, quantity):
    (found,) = (fit for fit in fits if fit.quantity == quantity)
    return found


def test_costs_are_those_of_the_first_evaluation_with_the_value(tmp_path):
    evaluations = [line(1, 2.0, 7.0), line(3, 5.0, 9.0), line(8, 8.5, 20.0), line(9, 9.0, 21.0)]
    study = Study(tmp_path, [SIZES], lambda _: evaluations, seconds_of)
    row = study.table.iloc[0]
    assert (row["reached"], row["goal"]) == (True, 8.0)
    # Rounds 4 to 8 were not looked at before round 8.
    assert row[["rounds_to_target_at_least", "rounds_to_target"]].tolist() == [4, 8]
    assert row[["bytes_to_target_at_least", "bytes_to_target"]].tolist() == [440, 880]
    assert row["client_updates_to_target"] == 40
    assert row["simulated_seconds_to_target_at_least"] == pytest.approx(9 + 11 / 5)
    assert row["simulated_seconds_to_target"] == 20
    fit = of(study.fits, ROUNDS)
    assert (fit.n_between, fit.n_censored) == (9, 0)
    assert "9 of 9 runs reached it after rounds without an evaluation" in scaling_results.sentence(
        fit
    )


def test_a_share_is_one_of_the_run_s_own_best(tmp_path):
    def evaluations(config):
        best = config.data.clients / 100
        return [line(k, best * min(k, 4) / 4) for k in range(1, 8)]

    study = Study(tmp_path, [SIZES], evaluations, seconds_of, target=f"{METRIC}:0.75max")
    assert study.table["rounds_to_target"].tolist() == [3.0] * 9
    assert study.table["goal"].tolist() == pytest.approx([0.075] * 3 + [0.75] * 3 + [7.5] * 3)
    fit = of(study.fits, ROUNDS)
    assert (fit.law.interval, fit.verdict) == ((0.0, 0.0), trends.UNKNOWN)
    assert scaling_results.sentence(fit) == (
        "Rounds to the target: 3 rounds in each of 9 runs, so no trend can be told."
    )
    answer = study.told[0][0].text
    assert f"The target is {METRIC}:0.75max, a share of every run's own best value." in answer


def test_runs_that_do_not_get_there_are_counted_and_kept(tmp_path):
    def evaluations(config):
        return until(rounds_of(config), last=10)

    study = Study(tmp_path, [SIZES], evaluations, seconds_of)
    table = study.table
    lost = table[~table["reached"]]
    assert set(lost["clients"]) == {1000}
    assert lost["rounds_to_target"].isna().all()
    assert lost["rounds_to_target_at_least"].tolist() == [10.0] * len(lost)
    fit = of(study.fits, ROUNDS)
    assert fit.n_censored == len(lost) == 3
    assert "3 of 9 runs did not reach the target" in scaling_results.sentence(fit)
    # Left out, or taken as 10, they would make the slope smaller than it is.
    assert fit.law.interval[0] <= 0.3 <= fit.law.interval[1]
    spent = table["rounds_to_target_at_least"].to_numpy()
    naive = trends.power_law(table["clients"].to_numpy(), spent, spent, np.array([1e4]))
    assert fit.law.exponent > naive.exponent
    drawn = scaling_page.chart(study.fits, table, study.axes).panels[1].series
    (stars,) = (series for series in drawn if series.kind == "stars")
    assert (stars.name, stars.y) == ("not reached", [10.0] * 3)


def test_nobody_gets_there(tmp_path):
    study = Study(tmp_path, [SIZES], lambda _: until(99), seconds_of)
    fit = of(study.fits, BYTES)
    assert fit.law is None
    assert scaling_results.sentence(fit).startswith(
        "Bytes to the target: no trend can be told, as too few runs reached the target"
    )
    (told,) = (x for x in study.told[1]["fits"] if x["quantity"] == BYTES.key)
    assert (told["exponent"], told["n_censored"], told["extrapolation"]) == (None, 9, None)


def numbers(text):
    return [float(x.replace(",", "")) for x in re.findall(r"-?\d[\d,]*\.?\d*(?:e[+-]\d+)?", text)]


def test_the_page_and_the_file_say_the_same(tmp_path):
    study = Study(tmp_path, [SIZES], lambda config: until(rounds_of(config)), seconds_of)
    parts, told = study.told
    assert parts[0].title == "Answer"
    sentences = parts[0].text.split("\n\n")
    assert sentences[-1] == "So it is."
    by_quantity = {entry["quantity"]: entry for entry in told["fits"]}
    assert list(by_quantity) == [q.key for q in (TIME, ROUNDS, BYTES, ACCURACY)]
    words = {trends.GROWS: ("grows", "grow"), trends.FALLS: ("falls", "fall")}
    for sentence, entry in zip(sentences, by_quantity.values(), strict=False):
        assert "9 runs" in sentence
        expected = words.get(entry["verdict"], (entry["verdict"],))
        assert any(f" {word} " in sentence for word in expected), sentence
        found = numbers(sentence)
        wanted = [entry["exponent"], *entry["interval"]]
        if "change" in entry:
            wanted += [entry["change"]["value"], *entry["change"]["interval"]]
        for number in wanted:
            assert any(abs(number - x) < 0.0051 for x in found), (number, sentence)
        scale = 1e-6 if entry["quantity"] == BYTES.key else 1
        beyond = entry["extrapolation"]
        assert beyond["clients"] == 10_000
        for number in (beyond["value"], *beyond["interval"]):
            assert any(x == pytest.approx(scale * number, rel=6e-3) for x in found), sentence
    assert by_quantity[TIME.key]["verdict"] == trends.GROWS
    assert by_quantity[TIME.key]["interval"][0] < 1 < by_quantity[TIME.key]["interval"][1]
    assert by_quantity[ROUNDS.key]["verdict"] == trends.GROWS
    rows = pd.DataFrame(told["rows"])
    assert rows[["clients", "seed"]].to_numpy().tolist() == [
        [n, s] for n in (10, 100, 1000) for s in range(3)
    ]
    shown = parts[2].table
    assert shown["exponent"].tolist() == [entry["exponent"] for entry in told["fits"]]
    assert shown["verdict"].tolist() == [entry["verdict"] for entry in told["fits"]]
    shown = study.fits, study.table, study.axes, TARGET
    page = scaling_page.page("Study", *shown, ["so it is"], {"command": "made so"})
    assert "nan" not in page.lower().split("plotly.js")[0]
    assert page.index(sentences[0][:40]) < page.index("made so") < page.index("plotly.js v")
    assert "<dl>" not in page
    drawing.write(parts[1].charts[0], tmp_path / "scaling.png")
    assert matplotlib.image.imread(tmp_path / "scaling.png").shape[0] > 500


def test_a_law_for_every_value_of_what_else_is_swept(tmp_path):
    def evaluations(config):
        return until(3 if config.method.variant == "mlp" else rounds_of(config))

    study = Study(tmp_path, [SIZES, "variant=mlp,id"], evaluations, seconds_of)
    laws = {fit.settings["variant"]: fit for fit in study.fits if fit.quantity == ROUNDS}
    assert laws["mlp"].is_constant
    assert laws["id"].verdict == trends.GROWS
    assert "Rounds to the target (variant id) grow" in scaling_results.sentence(laws["id"])
    panels = scaling_page.chart(study.fits, study.table, study.axes).panels
    assert len(panels) == 4
    assert [s.name for s in panels[0].series if s.legend] == ["mlp", "mlp law", "id", "id law"]


def test_failed_runs_are_left_out(tmp_path):
    study = Study(
        *(tmp_path, [SIZES], lambda config: until(rounds_of(config)), seconds_of),
        fail=("clients=10,seed=0", "clients=10,seed=1"),
    )
    assert len(study.table) == 7
    for fit in study.fits:
        assert np.isfinite(fit.law.interval).all()
    nobody = Study(tmp_path / "none", [SIZES], None, None, fail=study.runs)
    assert nobody.table.empty
    parts, told = nobody.told
    assert (told["fits"], told["rows"]) == ([], [])
    assert "No run has finished." in sections.page("Study", {}, parts)


def test_simulated_time_is_told_where_runs_have_it(tmp_path):
    def evaluations(config):
        number = rounds_of(config)
        return [line(k, 9.0 if k >= number else 5.0, simulated=60.0 * k) for k in range(1, 31)]

    study = Study(tmp_path, [SIZES], evaluations, seconds_of)
    fit = of(study.fits, SIMULATED)
    assert fit.law.exponent == pytest.approx(of(study.fits, ROUNDS).law.exponent)
    assert scaling_results.sentence(fit).startswith("Simulated time to the target grows")


def test_accuracy_of_two_numbers_of_clients_has_no_law(tmp_path):
    study = Study(tmp_path, ["clients=10,100"], lambda _: until(4), seconds_of)
    assert "needs runs of three numbers of clients" in scaling_results.sentence(
        of(study.fits, ACCURACY)
    )
