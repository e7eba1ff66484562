import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from fedvlr_jax.analysis.statistics import interval
from fedvlr_jax.report import drawing, paper_page

BACKBONES = ("fedavg", "fcf", "fedncf", "pfedrec", "fedrap")
SCORE = "warm/ndcg@50"


def accuracy(recommenders, seeds):
    rows = [
        {
            "recommender": recommender,
            "variant": variant,
            SCORE: 20.0 + k + 2 * v,
            f"{SCORE} sd": 0.5 if seeds > 1 else None,
        }
        for k, recommender in enumerate(recommenders)
        for v, variant in enumerate(("mlp", "fedvlr"))
    ]
    scores = {"EASE": 33.9, "ItemKNN": 33.8, "popularity": 9.4, "VBPR": None}
    scores |= {"content-kNN": 2.7, "iALS": 35.8}
    return pd.DataFrame(
        rows
        + [
            {"recommender": name, "variant": "centralized", SCORE: score, f"{SCORE} sd": None}
            for name, score in scores.items()
        ]
    )


def removal(recommenders, seeds):
    table = accuracy(recommenders, seeds)
    table = table[table["variant"] != "centralized"]
    return table.assign(removed=table["variant"].map({"mlp": "image", "fedvlr": "nothing"}))


def reliance(recommenders, seeds):
    lengths = np.array([3, 5, 9, 12, 19, 60])
    gain = np.array([np.nan, 20, 40, 10, np.nan, 5]) * seeds
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(lengths))
    users = dict(zip(("image", "text", "id"), shares.T, strict=True))
    one = pd.DataFrame(users | {"history_length": lengths, "gain": gain})
    return pd.concat([one.assign(recommender=name) for name in recommenders])


def recovery(_, seeds):
    columns = ("spearman weights", "spearman removal", "gain %")
    return pd.DataFrame(
        {"concentration": x, "history": history}
        | {c: None if (c, x) == (columns[1], 10) else x / 20 for c in columns}
        | {f"{c} sd": 0.1 if seeds > 1 else np.nan for c in columns}
        for x in (0.1, 1, 10)
        for history in ("all", "20 and more", "5 to 9")
    )


def curves(recommenders, seeds):
    return pd.DataFrame(
        {"recommender": name, "variant": variant, "seed": s, "round": r, SCORE: r + s * 0.5}
        for name in recommenders
        for variant in ("fedvlr", "id")
        for s in range(seeds)
        for r in range(5, 21 + 5 * s, 5)
    )


def grouped(recommenders, seeds):
    return pd.DataFrame(
        {
            "recommender": name,
            "variant": variant,
            "group": group,
            "users": 10 * place,
            "ndcg@50": 5.0 * place + k,
            "ndcg@50 sd": 0.5 if seeds > 1 else None,
        }
        for name in recommenders
        for k, variant in enumerate(("fedvlr", "id"))
        for place, group in enumerate(("0 to 4", "5 to 9", "10 to 19"), 1)
    )


MAKERS = {
    "accuracy": accuracy,
    "removal": removal,
    "reliance": reliance,
    "recovery": recovery,
    "curves": curves,
    "history_length": grouped,
}


def chart(name, recommenders, seeds):
    table = MAKERS[name](recommenders, seeds)
    if name == "recovery":
        return paper_page.recovery(table, seeds)
    return paper_page.charts({name: table}, seeds)[name]


def lines(panel):
    return {series.name: series for series in panel.series}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("recommenders", "seeds"), [(BACKBONES, 3), (BACKBONES[:1], 1)])
def test_pictures_are_written_and_large_enough(tmp_path, name, recommenders, seeds):
    path = tmp_path / "picture.png"
    drawing.write(chart(name, recommenders, seeds), path)
    height, width = matplotlib.image.imread(path).shape[:2]
    assert 500 <= height <= 1600
    assert 550 <= width <= 2000
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_bars_and_lines_are_the_table():
    (panel,) = chart("accuracy", ("fcf", "fedavg"), 3).panels
    drawn = lines(panel)
    assert {name: drawn[name].y for name in ("fedvlr", "mlp")} == {
        "fedvlr": [22, 23],
        "mlp": [20, 21],
    }
    names = list(drawn)[2:]
    values = {"content-kNN": 2.7, "popularity": 9.4, "ItemKNN": 33.8, "EASE": 33.9, "iALS": 35.8}
    assert names == [f"{name} {y}" for name, y in values.items()]
    assert [set(drawn[name].y) for name in names] == [{y} for y in values.values()]
    assert len({drawn[name].dash for name in names}) == 5, "told apart"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_pictures_have_the_intervals_of_the_runs(seeds):
    runs = np.random.default_rng(0).uniform(20, 30, (4, seeds))
    table = accuracy(("fcf", "fedavg"), seeds)
    table = table[table["variant"] != "centralized"]
    table = table.assign(**{SCORE: runs.mean(1), f"{SCORE} sd": runs.std(1, ddof=1)})
    (panel,) = paper_page.charts({"accuracy": table}, seeds)["accuracy"].panels
    found = {
        (place, name): tuple(ends[place] for ends in series.interval)
        for name, series in lines(panel).items()
        for place in (0, 1)
    }
    for k, which in enumerate([(0, "mlp"), (0, "fedvlr"), (1, "mlp"), (1, "fedvlr")]):
        assert found[which] == pytest.approx(interval(runs[k].tolist()))


def test_users_are_grouped_by_history():
    _, scores, shares = chart("reliance", ("fcf",), 1).panels
    assert scores.x.labels == [
        *("0 to 4\nn = 0", "5 to 9\nn = 2", "10 to 19\nn = 1", "50 and more\nn = 1")
    ]
    (line,) = scores.series
    assert line.x == [1, 2, 3], "nobody of the first group has a test item"
    assert line.y == [30, 10, 5]
    assert [ends[0] for ends in line.interval] == [20, 40], "of two users their range"
    tops = np.add(shares.series[-1].base, shares.series[-1].y)
    np.testing.assert_allclose(tops, 100)


def test_boxes_are_quartiles_of_users():
    box = chart("reliance", ("fcf", "fedavg"), 1).panels[0].series[0]
    shares = 100 * reliance(("fcf",), 1)["image"]
    found = [part[0] for part in (box.whiskers[0], box.interval[0], box.y, box.interval[1])]
    np.testing.assert_allclose(found, np.percentile(shares, (5, 25, 50, 75)))


def test_curves_end_where_the_first_seed_does():
    line = chart("curves", ("fcf",), 3).panels[0].series[0]
    assert line.x == [5, 10, 15, 20]
    assert line.y == [5.5, 10.5, 15.5, 20.5]


def test_groups_are_in_order_and_say_how_many_users_they_are():
    panel = chart("history_length", ("fcf", "fedavg"), 3).panels[1]
    assert panel.x.labels == ["0 to 4\nn=10", "5 to 9\nn=20", "10 to 19\nn=30"]
    first, second = panel.series
    assert [first.y, second.y] == [[5, 10, 15], [6, 11, 16]]
    assert (np.array(first.x) < second.x).all(), "side by side"


def test_groups_without_a_number_of_users_have_their_name():
    table = grouped(("fcf",), 1).drop(columns="users")
    (panel,) = paper_page.charts({"history_length": table}, 1)["history_length"].panels
    assert panel.x.labels[0] == "0 to 4"


@pytest.mark.parametrize(("name", "column"), [("history_length", "ndcg@50"), ("curves", SCORE)])
def test_a_later_panel_is_not_cut_off(name, column):
    table = MAKERS[name](("fcf", "fedavg"), 2)
    table.loc[table["recommender"] == "fedavg", column] *= 3
    found = paper_page.charts({name: table}, 2)[name]
    for axis, panel in zip(drawing.figure(found).axes, found.panels, strict=True):
        assert axis.get_ylim()[0] == 0
        assert axis.get_ylim()[1] > max(max(series.y) for series in panel.series)
