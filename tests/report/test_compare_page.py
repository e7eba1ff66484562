import json

import numpy as np
import pytest

from fedvlr_jax import targets
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.report import compare_page

USERS = 40


def run(folder, score, seed, fingerprint="x", cutoffs=(50,), **settings):
    """A finished run on disk, as far as it is compared; half of its users gain with the score."""
    folder.mkdir(parents=True)
    flat = Config.of(seed=seed, **settings).flat() | {"data_fingerprint": fingerprint}
    (folder / "config.json").write_text(json.dumps(flat))
    test = {f"warm/{m}@{k}": f * score for k in cutoffs for f, m in ((1, "ndcg"), (2, "hr"))}
    summary = {"test": test, "timing": {"round_seconds_median": score / 10}}
    (folder / "summary.json").write_text(json.dumps(summary))
    rank = np.full(USERS, 70)  # beyond what counts
    rank[: USERS // 2] = 0 if score > 50 else 5
    np.savez(
        folder / "per_user.npz", user=np.arange(USERS), rank=rank, warm=np.arange(USERS) % 2 == 0
    )


def sweep(folder, variant, gain, clients=(100, 1000), fingerprint="x", seeds=3):
    for c in clients:
        for seed in range(seeds):
            name = f"clients={c},seed={seed}"
            score = 40.0 + gain + seed + c / 1000
            run(folder / "runs" / name, score, seed, fingerprint, clients=c, variant=variant)
    return compare_page.held(folder)


def test_combinations_that_differ_in_one_setting(tmp_path):
    first = sweep(tmp_path / "a", "mlp", 0.0)
    second = sweep(tmp_path / "b", "fedvlr", 15.0)
    found = compare_page.compared(first, second)
    assert found.settings.to_dict("records") == [{"setting": "variant", "A": "mlp", "B": "fedvlr"}]
    assert found.varied == ("clients",)
    assert found.table["clients"].tolist() == [100, 1000]
    assert found.table["runs of A"].tolist() == [3, 3]
    np.testing.assert_allclose(found.table["B - A"], 15.0)
    # Scores s, s + 1, s + 2 on both sides: a standard error of sqrt(2/3), t(0.975, 4) = 2.7764.
    half = np.sqrt(2 / 3) * 2.77645
    np.testing.assert_allclose(found.table["B - A low"], 15.0 - half, rtol=1e-5)
    np.testing.assert_allclose(found.table["B - A high"], 15.0 + half, rtol=1e-5)
    np.testing.assert_allclose(found.table["round time, B / A"], [56.1 / 41.1, 57 / 42])
    assert found.alone == ([], [])
    # A's users had rank 5, B's rank 0: 1 - 1/log2(7) = 0.6438 of NDCG for half of the warm ones.
    assert found.table["over users"].str.startswith("+32.19 (").all()
    assert found.table["over users"].str.contains("p = 0.00").all()


def test_what_only_one_has_is_counted(tmp_path):
    first = sweep(tmp_path / "a", "mlp", 0.0, (100, 1000))
    second = sweep(tmp_path / "b", "fedvlr", 15.0, (1000, 5000, 7000))
    found = compare_page.compared(first, second)
    assert found.table["clients"].tolist() == [1000]
    names = [[run.name for run in runs] for runs in found.alone]
    assert names == [
        [f"clients=100,seed={s}" for s in range(3)],
        [f"clients={c},seed={s}" for c in (5000, 7000) for s in range(3)],
    ]


def test_users_are_not_paired_across_populations(tmp_path):
    first = sweep(tmp_path / "a", "mlp", 0.0)
    second = sweep(tmp_path / "b", "fedvlr", 15.0, fingerprint="y")
    assert compare_page.compared(first, second).table["over users"].isna().all()


def test_two_runs_of_one_seed(tmp_path):
    run(tmp_path / "a", 40.0, 0, variant="mlp")
    run(tmp_path / "b", 42.0, 0, variant="fedvlr")
    found = compare_page.compared(*(compare_page.held(tmp_path / name) for name in "ab"))
    assert found.varied == ()
    assert found.table["B - A"].tolist() == [2.0]
    assert found.table[["B - A low", "B - A high"]].isna().all(axis=None)
    assert compare_page.chart(found) is None


def test_two_seeds_have_no_interval_of_a_difference(tmp_path):
    for side, scores in (("a", (40.0, 44.0)), ("b", (50.0, 51.0))):
        for seed, score in enumerate(scores):
            run(tmp_path / side / "runs" / str(seed), score, seed, variant="mlp")
    found = compare_page.compared(*(compare_page.held(tmp_path / name) for name in "ab")).table
    assert found[["B - A low", "B - A high"]].isna().all(axis=None)
    score = compare_page.SCORE.format(k=50)
    ends = found[[f"{side}: {score} {end}" for side in "AB" for end in ("low", "high")]]
    assert ends.iloc[0].tolist() == [40.0, 44.0, 50.0, 51.0]


def test_the_chart_has_both(tmp_path):
    found = compare_page.compared(
        sweep(tmp_path / "a", "mlp", 0.0), sweep(tmp_path / "b", "id", 5.0)
    )
    names = [line.name for line in compare_page.chart(found).panels[0].series]
    assert names == ["A", "B"]


def test_layouts_do_not_part_runs(tmp_path):
    run(tmp_path / "a", 40.0, 0, chunk=3)
    run(tmp_path / "b", 42.0, 0, chunk=4)
    found = compare_page.compared(*(compare_page.held(tmp_path / name) for name in "ab"))
    assert found.settings.empty
    assert len(found.table) == 1


def test_what_holds_no_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder, expected the folder"):
        compare_page.held(tmp_path / "nowhere")


def test_nothing_in_common_is_refused(tmp_path):
    first = sweep(tmp_path / "a", "mlp", 0.0, (100, 200))
    second = sweep(tmp_path / "b", "mlp", 0.0, (300, 400))
    with pytest.raises(UserError, match="no combination of settings in common"):
        compare_page.compared(first, second)


def _json(**changes):
    def change(folder, name):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return change


def _text(content):
    return lambda folder, name: (folder / name).write_bytes(content)


def _arrays(**changes):
    def change(folder, name):
        with np.load(folder / name) as kept:
            arrays = {key: kept[key] for key in kept} | changes
        np.savez(folder / name, **{k: v for k, v in arrays.items() if v is not None})

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", _json(dim=[8, 16])),
        ("config.json", _json(views={"a": "b"})),
        ("config.json", _json(data_fingerprint=["x"])),
        ("config.json", _text(b"[]")),
        ("config.json", _text(b"{")),
        ("config.json", _text(b"[" * 20_000)),
        ("config.json", _text('{"dim": 8}'.encode("utf-16"))),
        ("config.json", _text(b'{"dim": ' + b"9" * 5000 + b"}")),
        ("summary.json", _json(test=None)),
        ("summary.json", _json(test={})),
        ("summary.json", _json(test=[1])),
        ("summary.json", _json(test={"warm/ndcg@50": "=1+1", "warm/hr@50": 1})),
        ("summary.json", _json(test={"warm/ndcg@50": True, "warm/hr@50": 1})),
        ("summary.json", _json(timing={})),
        ("summary.json", _json(timing={"round_seconds_median": "fast"})),
        ("summary.json", _text(b'{"test": NaN}')),
        ("per_user.npz", _text(b"")),
        ("per_user.npz", _text(b"PK\x03\x04 no archive")),
        ("per_user.npz", _arrays(rank=None)),
        ("per_user.npz", _arrays(rank=np.arange(3))),
        ("per_user.npz", _arrays(rank=np.full(USERS, "x"))),
        ("per_user.npz", _arrays(rank=np.full(USERS, 0.5))),
        ("per_user.npz", _arrays(warm=np.arange(USERS))),
        ("per_user.npz", _arrays(user=np.zeros((USERS, 2), int))),
        ("per_user.npz", _arrays(user=np.int64(3))),
        ("per_user.npz", _arrays(rank=np.full(USERS, None))),
        ("per_user.npz", lambda folder, name: (folder / name).unlink()),
    ],
)
def test_a_run_that_a_hand_has_edited_is_told_with_its_file(tmp_path, name, change):
    run(tmp_path / "a", 40.0, 0)
    run(tmp_path / "b", 42.0, 0)
    change(tmp_path / "b", name)
    with pytest.raises(UserError) as caught:
        compare_page.compared(*(compare_page.held(tmp_path / side) for side in "ab"))
    assert str(caught.value).startswith(str(tmp_path / "b" / name))


def test_a_user_who_is_warm_in_one_run_only_is_not_paired(tmp_path):
    run(tmp_path / "a", 40.0, 0)
    run(tmp_path / "b", 42.0, 0)
    _arrays(warm=np.ones(USERS, bool))(tmp_path / "b", "per_user.npz")
    found = compare_page.compared(*(compare_page.held(tmp_path / side) for side in "ab"))
    assert found.table["over users"].isna().all()


@pytest.mark.parametrize("devices", [True, False])
def test_what_a_target_took_on_either_side(devices, tmp_path):
    sides = sweep(tmp_path / "a", "mlp", 0.0, (100,)), sweep(tmp_path / "b", "fedvlr", 15.0, (100,))
    for factor, runs in zip((1, 2), sides, strict=True):
        for k, one in enumerate(runs):
            lines = [
                {
                    **{"round": n, "client_updates": 9 * n, "seconds": n / 4},
                    **{"download_bytes": 1e6 * n, "upload_bytes": 5e5 * n},
                    "simulated_seconds": 1800.0 * n if devices else None,
                    "valid/warm/ndcg@50": factor * (n + k),
                }
                for n in range(1, 11)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (one.folder / "metrics.jsonl").write_text(text)
    # The best value is 2 * (10 + 2), a half of it 12: B is there in rounds 6, 5 and 4.
    found = compare_page.compared(*sides, targets.parsed("valid/warm/ndcg@50:0.5max"))
    row = found.table.iloc[0]
    assert row["B: rounds to target"] == 5
    assert row["B: updates to target"] == 45
    assert row["B: MB up to target"] == 2.5
    assert row["B: seconds to target"] == 1.25
    assert row.get("B: hours on devices") == (2.5 if devices else None)
    # A has 10, 11 and 12 at the end: one of three is there, so there is no mean.
    assert row["A: rounds to target"] is None
    text = "\n".join(compare_page.lines(found, "a", "b"))
    assert "rounds to target   --                       5.00 (2.52 to 7.48)" in text
    assert ("hours on devices   --                       2.50 (1.26 to 3.74)" in text) == devices


def test_runs_with_other_cutoffs_are_compared_at_a_k_that_both_have(tmp_path):
    for name, score, cutoffs in (("a", 40.0, (3, 5, 50)), ("b", 55.0, (2, 3, 5)), ("c", 9.0, (7,))):
        run(tmp_path / name, score, 0, cutoffs=cutoffs)
    a, b, c = (compare_page.held(tmp_path / name) for name in "abc")
    found = compare_page.compared(a, b)
    assert found.cutoff == 5
    (row,) = found.table.to_dict("records")
    assert row["A: warm NDCG@5, %"] == 40
    assert row["B: warm HR@5, %"] == 110
    # Ranks 5 and 0, of which the first is beyond the fifth place.
    assert row["over users"].startswith("+50.00 (")
    assert any("warm NDCG@5, %" in line for line in compare_page.lines(found, "a", "b"))
    assert compare_page.sections(found)
    with pytest.raises(UserError, match=r"no K in common \(--cutoffs=3,5,50 and 7\), expected"):
        compare_page.compared(a, c)


def test_a_target_that_a_run_has_not_measured_is_a_sentence(tmp_path):
    for name in "ab":
        run(tmp_path / name, 40.0, 0)
        line = {"round": 2, "valid/warm/ndcg@50": 3.0}
        (tmp_path / name / "metrics.jsonl").write_text(f"{json.dumps(line)}\n")
    sides = [compare_page.held(tmp_path / name) for name in "ab"]
    with pytest.raises(UserError, match=r"--target=valid/hr@5: .*/a has not measured it"):
        compare_page.compared(*sides, targets.parsed("valid/hr@5:3"))
