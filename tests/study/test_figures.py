import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from fedvlr_jax import drawing
from fedvlr_jax.study import figures, panels

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


def by_group(table, path):
    panels.by_group(table, "group", "train items", path)


MAKERS = {
    figures.accuracy: accuracy,
    figures.removal: removal,
    figures.reliance: reliance,
    figures.recovery: recovery,
    panels.curves: curves,
    by_group: grouped,
}


@pytest.mark.parametrize("draw", MAKERS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize(("recommenders", "seeds"), [(BACKBONES, 3), (BACKBONES[:1], 1)])
def test_pictures_are_written_and_large_enough(tmp_path, draw, recommenders, seeds):
    path = tmp_path / "picture.png"
    draw(MAKERS[draw](recommenders, seeds), path)
    height, width = matplotlib.image.imread(path).shape[:2]
    assert 500 <= height <= 1600
    assert 550 <= width <= 2000
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


@pytest.fixture
def drawn(monkeypatch):
    """Takes what would be written."""
    found = []
    monkeypatch.setattr(drawing, "save", lambda figure, _: found.append(figure))
    return found


def test_bars_and_lines_are_the_table(tmp_path, drawn):
    figures.accuracy(accuracy(("fcf", "fedavg"), 3), tmp_path / "x.png")
    (axis,) = drawn[0].axes
    heights = {bars.get_label(): [b.get_height() for b in bars] for bars in axis.containers[1::2]}
    assert heights == {"fedvlr": [22, 23], "mlp": [20, 21]}
    assert [t.get_text() for t in axis.texts] == ["popularity 9.4", "ItemKNN 33.8", "EASE 33.9"]
    places = [t.get_position()[1] for t in axis.texts]
    assert min(np.diff(places)) > 0.05, "names do not overlap"


def test_users_are_grouped_by_history(tmp_path, drawn):
    figures.reliance(reliance(("fcf",), 1), tmp_path / "x.png")
    _, scores, shares = drawn[0].axes
    labels = [t.get_text() for t in scores.get_xticklabels()]
    assert labels == ["0 to 4\nn = 0", "5 to 9\nn = 2", "10 to 19\nn = 1", "50 and more\nn = 1"]
    (line,) = (x for x in scores.lines if len(x.get_xdata()) == 4 and x.get_linestyle() == "-")
    np.testing.assert_array_equal(line.get_ydata().astype(float), [np.nan, 30, 10, 5])
    (segments,) = (c.get_segments() for c in scores.collections)
    half = 12.7062 * np.std([20, 40], ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    np.testing.assert_allclose(segments[1][:, 1], [30 - half, 30 + half], rtol=1e-4)
    tops = [b.get_y() + b.get_height() for b in shares.containers[-1]]
    np.testing.assert_allclose(tops, 100)


def test_curves_end_where_the_first_seed_does(tmp_path, drawn):
    panels.curves(curves(("fcf",), 3), tmp_path / "x.png")
    line = drawn[0].axes[0].lines[0]
    assert line.get_xdata().tolist() == [5, 10, 15, 20]
    assert line.get_ydata().tolist() == [5.5, 10.5, 15.5, 20.5]


def test_groups_are_in_order_and_say_how_many_users_they_are(tmp_path, drawn):
    by_group(grouped(("fcf", "fedavg"), 3), tmp_path / "x.png")
    axis = drawn[0].axes[1]
    labels = [t.get_text() for t in axis.get_xticklabels()]
    assert labels == ["0 to 4\nn=10", "5 to 9\nn=20", "10 to 19\nn=30"]
    lines = [x for x in axis.lines if x.get_linestyle() == "-"]
    assert [x.get_ydata().tolist() for x in lines] == [[5, 10, 15], [6, 11, 16]]
    assert (lines[0].get_xdata() < lines[1].get_xdata()).all(), "side by side"


def test_groups_without_a_number_of_users_have_their_name(tmp_path, drawn):
    by_group(grouped(("fcf",), 1).drop(columns="users"), tmp_path / "x.png")
    assert drawn[0].axes[0].get_xticklabels()[0].get_text() == "0 to 4"


@pytest.mark.parametrize(("draw", "table"), [(by_group, grouped), (panels.curves, curves)])
def test_a_later_panel_is_not_cut_off(tmp_path, drawn, draw, table):
    found = table(("fcf", "fedavg"), 2)
    column = "ndcg@50" if draw is by_group else SCORE
    found.loc[found["recommender"] == "fedavg", column] *= 3
    draw(found, tmp_path / "x.png")
    for axis in drawn[0].axes:
        assert axis.get_ylim()[0] == 0
        assert axis.get_ylim()[1] > max(line.get_ydata().max() for line in axis.lines)
