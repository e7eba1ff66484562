import pandas as pd

from fedvlr_jax.report import seeds

AXES = {"variant": ("mlp", "id"), "clients": (100, 20), "seed": (0, 1), "rounds": (5,)}


def table():
    rows = [
        {"run": f"{v}{c}{s}", "status": "finished", "variant": v, "clients": c, "seed": s}
        | {"score": 10.0 * s + c, "count": 7, "partly": None if v == "id" and s else 1.0}
        for s in (1, 0)
        for c in (20, 100)
        for v in ("id", "mlp")
    ]
    failed = {"run": "x", "status": "failed", "variant": "id", "clients": 20, "seed": 2}
    return pd.DataFrame([*rows, failed])


def test_what_varies_and_along_what():
    assert seeds.varied(AXES) == ["variant", "clients"]
    assert seeds.along(AXES) == "clients"
    assert seeds.along({"dim": (4, 8), "server_lr": (0.1, 0.2)}) == "dim"
    assert seeds.along({"variant": ("id", "mlp"), "seed": (0, 1)}) is None


def test_runs_come_in_the_order_of_the_axes():
    found = seeds.in_order(table(), AXES)
    pairs = list(dict.fromkeys(zip(found["variant"], found["clients"], strict=True)))
    assert pairs == [("mlp", 100), ("mlp", 20), ("id", 100), ("id", 20)]


def test_a_row_per_combination_over_finished_runs():
    columns = {"score": "score", "count": "n", "partly": "partly"}
    found = seeds.combined(seeds.in_order(table(), AXES), AXES, columns)
    assert found["runs"].tolist() == [2, 2, 2, 2]
    assert found["score"].tolist() == [105.0, 25.0, 105.0, 25.0]
    # Of two runs their range.
    assert found["score low"].tolist() == [100.0, 20.0, 100.0, 20.0]
    assert found["score high"].tolist() == [110.0, 30.0, 110.0, 30.0]
    # All the same: no interval, and a count stays one.
    assert found["n"].tolist() == [7, 7, 7, 7]
    assert found["n low"].isna().all()
    assert found["partly"].isna().tolist() == [False, False, True, True]


def test_without_axes_all_runs_are_one_combination():
    found = seeds.combined(table(), {"seed": (0, 1)}, {"score": "score"})
    assert found["runs"].tolist() == [8]
