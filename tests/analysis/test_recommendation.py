"""What one user is shown, from a shop that was really prepared and trained on."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedvlr_jax
from experiments import recommend as program
from fedvlr_jax.analysis.recommendation import recommend
from fedvlr_jax.data.layout import read_folder
from fedvlr_jax.errors import UserError, naming_flags
from fedvlr_jax.prepare import PrepareConfig, prepare
from fedvlr_jax.report.user_page import card
from tests import worlds
from tests.experiments import programs


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    config = PrepareConfig.of(source="rendered", clients=30, items=40, clip="random:tiny")
    return prepare(config, tmp_path_factory.mktemp("shop") / "shop").out


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    settings = {"dim": 8, "rounds": 2, "eval_every": 2, "devices": 1, "buckets": 1}
    config = fedvlr_jax.Config.of(data=str(shop), views="image,text", **settings)
    fedvlr_jax.train(config, out)
    return out


def test_shows_what_the_run_has_found(shop, run):
    data, ranked = read_folder(shop, True).interactions, np.load(run / "rankings.npz")
    per_user = np.load(run / "per_user.npz")
    titles = pd.read_csv(shop / "items.csv")["title"]
    log = pd.read_csv(shop / "inter.csv")
    for user in range(30):
        shown = recommend(run, user)
        assert shown.name == f"client{user:06d}"
        assert [item.item for item in shown.top] == ranked["topk"][user][:10].tolist()
        assert [item.title for item in shown.top] == titles[ranked["topk"][user][:10]].tolist()
        own = log[(log["userID"] == user) & (log["split_label"] == 0)]
        newest_first = own.sort_values("timestamp", ascending=False)["itemID"].tolist()
        assert [item.item for item in shown.history] == newest_first
        assert list(shown.weights) == ["image", "text"]
        assert sum(shown.weights.values()) == pytest.approx(1, abs=1e-5)
        assert shown.test_rank == per_user["rank"][user]
        for place, item in enumerate(shown.top):
            assert (item.held_out == "test") == (item.item == data.test[user])
            assert (item.held_out == "validation") == (item.item == data.valid[user])
            if item.held_out == "test":
                assert place == shown.test_rank


def test_a_user_by_its_original_id(run):
    assert recommend(run, original_user="client000007") == recommend(run, 7)
    assert len(recommend(run, 7, top=15).top) == 15


@pytest.mark.parametrize("user", [7, np.int64(7), np.array(7), 7.0, np.uint8(7), np.arange(8)[7]])
@pytest.mark.parametrize("path", [str, Path])
def test_python_gives_paths_as_text_and_numbers_of_numpy(run, shop, user, path):
    assert (
        recommend(path(run), user, data=path(shop), top=np.int64(3)).top
        == (recommend(run, 7).top[:3])
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": "7"}, "user='7': expected a whole number from 0 to 2147483647, found a str"),
        ({"user": 1.5}, "user=1.5: expected a whole number from 0 to 2147483647"),
        ({"user": True}, "user=True: expected a whole number from 0 to 2147483647, found a bool"),
        ({"user": -1}, "user=-1: expected a whole number from 0 to"),
        ({"user": 30}, "user=30: expected an id from 0 to 29"),
        ({"user": 1, "top": 0}, "top=0: expected a whole number from 1 to"),
        ({"user": 1, "top": 51}, "top=51: expected 1 to 50 items"),
        ({"user": 1, "top": "3"}, "top='3': expected a whole number from 1 to 2147483647, found a"),
        ({"user": 1, "data": 3}, "data=3: expected a folder, found an int"),
        ({"run": None}, "run=None: expected a folder, found a NoneType"),
        ({"run": "nowhere", "user": 1}, "run=nowhere: no run (config.json is missing)"),
        ({}, "user: expected either user=ID or original_user=ID"),
        ({"original_user": 7}, "original_user=7: not among the 30 users kept"),
    ],
)
def test_python_hears_of_arguments(run, given, words):
    with naming_flags(False):
        with pytest.raises(UserError) as caught:
            recommend(**{"run": run} | given)
        assert str(caught.value).startswith(words)


def test_titles_and_views_are_shown_and_not_obeyed(run, shop, tmp_path, capsys):
    data, other = shutil.copytree(shop, tmp_path / "data"), shutil.copytree(run, tmp_path / "run")
    table = pd.read_csv(data / "items.csv")
    table["title"] = "'=1+1\x1b[2J"
    table.to_csv(data / "items.csv", index=False)
    with np.load(run / "per_user.npz") as kept:
        arrays = dict(kept) | {"views": np.array(["\x1b]0;x\x07", "<b>"])}
    np.savez(other / "per_user.npz", **arrays)
    code, printed, _ = programs.in_process(
        program, capsys, f"--run={other}", "--user=3", f"--data={data}"
    )
    page = (other / "user-3.html").read_text()
    assert code == 0
    assert "\x1b" not in printed + page
    assert "\\x1b]0;x\\x07" in printed
    assert "&lt;b&gt;" in page
    assert " 1. =1+1" in printed


@pytest.mark.parametrize("name", ["inter.csv", "notes.html", "card"])
def test_nothing_but_a_card_is_replaced(run, shop, tmp_path, capsys, name):
    other = shutil.copytree(shop, tmp_path / "other")
    (other / name).touch()
    before = (other / name).read_bytes()
    complaint = refused(capsys, f"--run={run}", "--user=1", f"--out={other / name}")
    assert "this file is there already, and this program has not written it" in complaint
    assert (other / name).read_bytes() == before


def test_the_card_holds_every_picture_and_title(run):
    shown = recommend(run, 3)
    page = card(shown)
    n_pictures = len(shown.top) + min(len(shown.history), 12)
    assert len(re.findall(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]{500,}"', page)) == n_pictures
    for item in shown.top:
        assert html.escape(item.title) in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # needs nothing else


def test_titles_are_text_and_never_markup(run, shop, tmp_path):
    other = shutil.copytree(shop, tmp_path / "other")
    table = pd.read_csv(other / "items.csv")
    table["title"] = '<script>alert("x")</script> & "more"'
    table.to_csv(other / "items.csv", index=False)
    page = card(recommend(run, 3, data=other))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_without_titles_and_pictures(run, shop, tmp_path):
    bare = shutil.copytree(shop, tmp_path / "bare")
    shutil.rmtree(bare / "images")
    for name in ("items.csv", "users.csv", "dataset.json"):
        (bare / name).unlink()
    shown = recommend(run, 3, data=bare)
    assert shown.name == ""
    assert shown.top[0].title == f"item {shown.top[0].item}"
    assert card(shown).count("no picture") == len(shown.top) + min(len(shown.history), 12)
    with pytest.raises(UserError, match=r"the data has no users\.csv"):
        recommend(run, original_user="client000003", data=bare)


def test_a_generated_population_can_be_looked_at(tmp_path):
    config = worlds.config(data="synthetic", clients=20, items=40, variant="mlp", rounds=2)
    fedvlr_jax.train(config, tmp_path / "run")
    shown = recommend(tmp_path / "run", 4)
    assert shown.weights == {"mlp": 1.0}
    assert "no router" in card(shown)


def refused(capsys, *arguments):
    """The sentence that the program ends with."""
    code, printed, complaint = programs.in_process(program, capsys, *arguments)
    assert (code, printed) == (2, "")
    assert complaint.count("\n") == 1
    return complaint


def test_mistakes_end_in_one_sentence(run, shop, tmp_path, capsys):
    assert "--run: missing" in refused(capsys, "--user=1")
    assert "no run (config.json is missing)" in refused(capsys, f"--run={tmp_path}", "--user=1")
    assert "expected an id from 0 to 29" in refused(capsys, f"--run={run}", "--user=30")
    assert "--user=-1: expected a whole number from 0 to" in refused(capsys, "--user=-1")
    assert "either --user=ID or" in refused(capsys, f"--run={run}")
    assert "either" in refused(capsys, f"--run={run}", "--user=1", "--original_user=a")
    assert "not among the 30" in refused(capsys, f"--run={run}", "--original_user=x")
    assert "--top=0: expected a whole number from 1" in refused(capsys, "--top=0")
    out = tmp_path / "no" / "card.html"
    assert "cannot be written" in refused(capsys, f"--run={run}", "--user=1", f"--out={out}")[:200]
    moved = tmp_path / "moved"
    assert "its data cannot be read" in refused(
        capsys, f"--run={run}", "--user=1", f"--data={moved}"
    )
    changed = shutil.copytree(shop, tmp_path / "changed")
    features = np.load(changed / "image_features.npy")
    np.save(changed / "image_features.npy", features[::-1])
    assert "has changed since" in refused(capsys, f"--run={run}", "--user=1", f"--data={changed}")
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    assert "an unfinished run" in refused(capsys, f"--run={unfinished}", "--user=1")


def test_clients_that_were_not_evaluated(tmp_path):
    config = worlds.config(data="synthetic", clients=20, items=40, variant="mlp", eval_clients=5)
    fedvlr_jax.train(config, tmp_path / "run")
    there = np.load(tmp_path / "run" / "per_user.npz")["user"]
    missing = next(user for user in range(20) if user not in there)
    assert recommend(tmp_path / "run", int(there[0])).top
    with pytest.raises(UserError, match="was not evaluated"):
        recommend(tmp_path / "run", missing)


def test_the_program_prints_and_writes(run, shop, tmp_path, capsys):
    out = tmp_path / "card.html"
    _, printed, _ = programs.in_process(program, capsys, f"--run={run}", "--user=3", f"--out={out}")
    shown = recommend(run, 3)
    assert printed.splitlines()[0] == "user 3 (client000003)"
    for place, item in enumerate(shown.top, 1):
        assert f"{place:>2}. {item.title}" in printed
    preference = pd.read_csv(shop / "users.csv").loc[3, "preference_text"]
    assert f"text {100 * preference:.0f} %" in printed.splitlines()[-2]
    assert "generated to care about" in card(shown)
    assert re.search(r"  image  █* +\d+ %\n  text   █* +\d+ %\n", printed)
    assert out.read_text() == card(shown)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["rankings.npz", "per_user.npz"])
@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.write_bytes(b"")])
def test_damaged_runs_are_told(run, tmp_path, name, damage):
    other = shutil.copytree(run, tmp_path / "other")
    damage(other / name)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        recommend(other, 3)


def test_other_files_in_a_runs_place(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    np.savez(other / "rankings.npz", users=np.arange(3))
    with pytest.raises(UserError, match=r"rankings\.npz is damaged"):
        recommend(other, 3)
    for content in ("{}", "[" * 100000):
        other = shutil.copytree(run, tmp_path / str(len(content)))
        (other / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            recommend(other, 3)
    with pytest.raises(UserError, match="only a data set in a folder"):
        recommend(run, 3, data=Path("synthetic"))


def test_places_where_no_card_can_be(run, tmp_path, capsys):
    for out in ("/", "..", tmp_path, "/dev/null"):
        assert "expected the name of a new file" in refused(
            capsys, f"--run={run}", "--user=1", f"--out={out}"
        )
    assert "File name too long" in refused(capsys, f"--run={'x' * 300}", "--user=1")


def test_damaged_labels_are_told(run, shop, tmp_path):
    for content, words in (
        ("", "items.csv"),
        ("itemID,title\n5,a\n", "every itemID"),
        ("itemID,title\n0,a\n", "from 0 to 39"),
        ("itemID,title\n99999999999999999999,a\n", "not a table"),
    ):
        other = shutil.copytree(shop, tmp_path / words)
        (other / "items.csv").write_text(content)
        with pytest.raises(UserError, match=words):
            recommend(run, 3, data=other)
    other = shutil.copytree(shop, tmp_path / "json")
    (other / "dataset.json").write_text(json.dumps({"images": None}))
    assert "no picture" in card(recommend(run, 3, data=other))
