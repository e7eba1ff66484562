"""Whole preparations, from each source's published format to a folder that trains."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedvlr_jax.data.layout import read_folder
from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare import PrepareConfig, prepare
from fedvlr_jax.prepare import claim as folder_module
from fedvlr_jax.prepare.encoding import NO_TITLE
from fedvlr_jax.reporter import Silent
from fedvlr_jax.server import clip
from fedvlr_jax.server.encode import Encoder
from tests.data import hostile
from tests.data.raw import published
from tests.server import clips

TINY = {"clip": "random:tiny", "batch": 4}


@pytest.fixture(scope="module", autouse=True)
def _shapes_found_once():
    with clips.shapes_found_once():
        yield


class Notes(Silent):
    def __init__(self):
        self.sentences = []

    def note(self, sentence):
        self.sentences.append(sentence)

    def text(self):
        return "\n".join(self.sentences)


def draw_pictures(folder, names):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(path)
    return folder


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def settings_of(source, raw, item_name, images):
    """What prepares the published files of `source`, with pictures of all items but a."""
    kind = published.SOURCES[source][0]
    settings = {"source": kind, "raw": str(raw)}
    if kind == "mmrec":
        return settings
    settings |= TINY | {"images": str(images)}
    if kind == "csv":
        draw_pictures(images, [f"{k}/front.png" for k in "bcdef"])
        items = {"item_table": str(raw / "goods.csv"), "title_column": "name"}
        return settings | published.COLUMNS | items | {"image_column": "photo"}
    draw_pictures(images, [f"{published.name_of(item_name, k)}.png" for k in "bcdefg"])
    return settings


@pytest.mark.parametrize("source", published.SOURCES)
def test_every_source_becomes_a_data_set(tmp_path, raw, source):
    _, write = published.SOURCES[source]
    user_name, item_name = write(raw, gz=source == "movielens_1m")
    settings = settings_of(source, raw, item_name, tmp_path / "images")
    notes = Notes()
    out = prepare(PrepareConfig.of(**settings), tmp_path / "out", notes).out
    summary = json.loads((out / "dataset.json").read_text())
    assert summary["kept"] == published.KEPT
    assert summary["filters"]["merged_repeats"] == published.MERGED
    assert summary["read"] == {"interactions": 22, "users": 4, "items": 7}

    # The split, told in the source's own names.
    users = pd.read_csv(out / "users.csv", dtype=str)["original_id"].tolist()
    catalogue = pd.read_csv(out / "items.csv", dtype=str, keep_default_na=False)
    items = catalogue["original_id"].tolist()
    data = read_folder(out, needs_content=True)
    found = data.interactions
    held_out = {user: (items[found.valid[u]], items[found.test[u]]) for u, user in enumerate(users)}
    assert held_out == {
        published.name_of(user_name, user): tuple(published.name_of(item_name, k) for k in pair)
        for user, pair in published.HELD_OUT.items()
    }
    assert found.lengths.tolist() == [4, 3, 3]
    assert items == [published.name_of(item_name, k) for k in "fabcdeg"]
    assert (
        json.loads((out / "dataset.json").read_text())["settings"]
        == PrepareConfig.of(**settings).flat()
    )
    if source == "mmrec":
        for name in ("image", "text"):
            rows = np.load(raw / f"{name}_feat.npy").astype("f4")
            ours = np.load(out / f"{name}_features.npy")
            np.testing.assert_array_equal(ours, rows[[int(item) for item in items]])
        return

    # Titles, pictures and what stands in for those that are missing: b and g, and a.
    titles = [published.TITLES.get(k, "") for k in "fabcdeg"]
    if source.startswith("movielens"):
        titles = [title and f"{title}. Comedy, Drama" for title in titles]
    assert catalogue["title"].tolist() == titles
    assert summary["titles"] == {"missing": 1, "missing_share": 1 / 7}
    without = {"csv": "ag"}.get(source, "a")
    assert summary["images"]["missing"] == len(without)
    assert [bool(name) for name in catalogue["image"]] == [k not in without for k in "fabcdeg"]
    assert f"{len(without)} of 7 items" in notes.text()
    assert NO_TITLE in notes.text()
    model = clip.load("random:tiny")
    assert summary["encoder"] == model.describe()
    assert "no pretrained knowledge" in notes.text()
    encoder = Encoder(model.embed_texts, model.params, model.tokens(""), 4)
    texts = [title or NO_TITLE for title in titles]
    expected = np.concatenate(list(encoder.rows(lambda k: model.tokens(texts[k]), 0, 7)))
    np.testing.assert_allclose(
        np.load(out / "text_features.npy").astype(float),
        expected,
        atol=2e-4,  # float16
    )
    rows = np.load(out / "image_features.npy")
    assert rows.dtype == np.float16
    there = np.array([k not in without for k in "fabcdeg"])
    np.testing.assert_allclose(np.linalg.norm(rows[there].astype(float), axis=1), 1, atol=1e-3)
    mean = rows[there].astype(float).mean(axis=0)
    np.testing.assert_allclose(
        rows[~there].astype(float), np.tile(mean, (len(without), 1)), atol=1e-3
    )


def test_items_under_the_minimum_go_too(tmp_path, raw):
    published.ninerec(raw)
    config = PrepareConfig.of(source="ninerec", raw=str(raw), min_item_interactions=2, **TINY)
    assert prepare(config, tmp_path / "out").summary["kept"] == published.KEPT_BOTH


def test_without_pictures_there_are_no_image_features(tmp_path, raw):
    published.ninerec(raw)
    notes = Notes()
    config = PrepareConfig.of(source="ninerec", raw=str(raw), **TINY)
    out = prepare(config, tmp_path / "out", notes).out
    assert not (out / "image_features.npy").exists()
    assert "no image features" in notes.text()
    assert read_folder(out, needs_content=True).catalogue.image is None


def test_a_bare_log_needs_no_encoder(tmp_path, raw):
    published.table(raw)
    (raw / "goods.csv").unlink()
    config = PrepareConfig.of(source="csv", raw=str(raw), clip="/no/such/clip", **published.COLUMNS)
    out = prepare(config, tmp_path / "out").out
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.json",
        "inter.csv",
        "items.csv",
        "users.csv",
    ]
    assert read_folder(out, needs_content=False).interactions.n_clients == 3


def test_hostile_pictures_count_as_missing(tmp_path, raw):
    """Every hostile picture stands for one item; all of them are told, none stops the run."""
    names = [*hostile.GOOD, *hostile.REASONS]
    images = hostile.fill(tmp_path / "images", tmp_path / "outside")
    paths = {f"i{k}": name for k, name in enumerate(names)} | {"iup": "../outside/secret.jpg"}
    with open(raw / "log.csv", "w") as file:
        file.write("who,what,when\n")
        for user in range(3):
            file.writelines(f"{user},{item},{k}\n" for k, item in enumerate(paths))
    with open(tmp_path / "goods.csv", "w") as file:
        file.write("what,photo\n")
        file.writelines(f"{item},{path}\n" for item, path in paths.items())
    notes = Notes()
    config = PrepareConfig.of(
        source="csv",
        raw=str(raw),
        images=str(images),
        user_column="who",
        item_column="what",
        time_column="when",
        item_table=str(tmp_path / "goods.csv"),
        image_column="photo",
        **TINY,
    )
    out = prepare(config, tmp_path / "out", notes).out
    pictures = json.loads((out / "dataset.json").read_text())["images"]
    refused = {*hostile.REASONS, "../outside/secret.jpg"} - {"dangling.jpg"}
    assert pictures["unusable"] == len(refused)
    assert pictures["missing"] == 1
    told = {one["picture"]: one["reason"] for one in pictures["first_unusable"]}
    assert set(told) == refused
    for name in refused & set(hostile.REASONS):
        assert hostile.REASONS[name] in told[name]
    assert "leads out of the folder" in told["../outside/secret.jpg"]
    assert "more pictures that are of no use" in notes.text()
    kept = pd.read_csv(out / "items.csv", keep_default_na=False)["image"]
    assert set(kept) == {*hostile.GOOD, ""}
    assert not (out / "text_features.npy").exists()


def test_ids_never_become_paths(tmp_path, raw):
    outside = draw_pictures(tmp_path / "outside", ["secret.png"])
    images = draw_pictures(tmp_path / "images", ["a.png"])
    assert outside.is_dir()
    rows = [(u, item) for u in range(3) for item in ("a", "../outside/secret", "b", "c", "d")]
    text = "".join(f"{item},{user},{k}\n" for k, (user, item) in enumerate(rows))
    (raw / "x_pair.csv").write_text(text)
    (raw / "x_item.csv").write_text("a,A,A\n")
    config = PrepareConfig.of(source="ninerec", raw=str(raw), images=str(images), **TINY)
    summary = prepare(config, tmp_path / "out").summary
    assert summary["images"]["missing"] == 4


def test_pictures_that_are_named_and_not_there_are_told(tmp_path, raw):
    settings = settings_of("csv", raw, published.table(raw)[1], tmp_path / "images")
    notes = Notes()
    summary = prepare(PrepareConfig.of(**settings), tmp_path / "out", notes).summary
    assert summary["images"]["reasons"] == {"no such file": 1, "none named": 1}
    assert "1 pictures that are named are not there, the first is a/front.png" in notes.text()
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"expected files like a/front\.png"):
        prepare(PrepareConfig.of(**settings), tmp_path / "other")


def test_raw_files_that_have_changed_are_told(tmp_path, raw):
    published.ninerec(raw)
    config = PrepareConfig.of(source="ninerec", raw=str(raw), **TINY)
    done = prepare(config, tmp_path / "out")
    assert prepare(config, tmp_path / "out").summary == done.summary
    with open(raw / "KU_pair.csv", "a") as file:
        file.write("va,9,9\n")
    with pytest.raises(UserError, match=r"KU_pair\.csv has changed since"):
        prepare(config, tmp_path / "out")
    (raw / "KU_pair.csv").unlink()  # gone to save space
    assert prepare(config, tmp_path / "out").summary == done.summary


def test_no_picture_at_all_is_refused(tmp_path, raw):
    published.ninerec(raw)
    draw_pictures(tmp_path / "images", ["other.png"])
    config = PrepareConfig.of(
        source="ninerec", raw=str(raw), images=str(tmp_path / "images"), **TINY
    )
    with pytest.raises(UserError, match=r"none of the 7 items has a picture there.*vf.jpg"):
        prepare(config, tmp_path / "out")


class Killed(BaseException):
    """Nothing between a preparation and its end expects this."""


class KilledAfter(Notes):
    """Stops the preparation the n-th time that it reports anything."""

    def __init__(self, n):
        super().__init__()
        self.left = n

    def _tick(self):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def note(self, sentence):
        super().note(sentence)
        self._tick()

    def advance(self, _):
        self._tick()


SHOP = {"source": "rendered", "clients": 30, "items": 25, "clip": "random:tiny", "batch": 4}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return prepare(PrepareConfig.of(**SHOP), tmp_path_factory.mktemp("shop") / "shop").out


def test_killed_anywhere_it_ends_the_same(tmp_path, shop, monkeypatch):
    out = tmp_path / "out"
    embedded = []
    real = Encoder.rows

    def counted(self, load, start, stop, timing=None):
        for rows in real(self, load, start, stop, timing):
            embedded.append(len(rows))
            yield rows

    monkeypatch.setattr(Encoder, "rows", counted)
    kills = 0
    for after in (1, 3, 4, 5, 4, 6, 5, 100):
        try:
            prepare(PrepareConfig.of(**SHOP), out, KilledAfter(after))
            break
        except Killed:
            kills += 1
            with pytest.raises(UserError, match="neither"):
                read_folder(out, needs_content=True)
    assert kills == 7
    assert content(out) == content(shop)
    # Pictures and texts, and at most one batch again for each kill.
    assert sum(embedded) <= 2 * SHOP["items"] + kills * SHOP["batch"]


def test_a_finished_one_is_left_alone(shop):
    before = content(shop)
    notes = Notes()
    prepare(PrepareConfig.of(**SHOP | {"batch": 9, "workers": 3}), shop, notes)
    assert "finished, nothing to do" in notes.text()
    assert content(shop) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path, shop):
    with pytest.raises(UserError, match=r"--seed was 0, now 1"):
        prepare(PrepareConfig.of(**SHOP, seed=1), shop)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt and no dataset\.json"):
        prepare(PrepareConfig.of(**SHOP), other)
    with pytest.raises(UserError, match="is a file"):
        prepare(PrepareConfig.of(**SHOP), other / "thesis.txt")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    broken = tmp_path / "broken"
    shutil.copytree(shop, broken)
    (broken / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json: not readable as JSON"):
        prepare(PrepareConfig.of(**SHOP), broken)


def test_what_a_late_kill_left_is_cleaned(tmp_path, shop):
    late = shutil.copytree(shop, tmp_path / "late")
    (late / ".tmp-image_features").mkdir()
    (late / ".tmp-image_features" / "rows.f16").write_bytes(b"rows")
    (late / ".tmp-settings.json").write_text("{}")
    (late / ".lock").touch()
    prepare(PrepareConfig.of(**SHOP), late)
    assert content(late) == content(shop)


def test_a_mistake_takes_along_what_it_made(tmp_path, raw):
    mine = tmp_path / "mine"
    mine.mkdir()
    mistake = SHOP | {"min_user_interactions": 400}
    for out in (mine, tmp_path / "new"):
        with pytest.raises(UserError, match="--min_user_interactions=400"):
            prepare(PrepareConfig.of(**mistake), out)
    assert mine.is_dir()
    assert not (tmp_path / "new").exists()
    assert not list(mine.iterdir())
    # A folder that is the current one cannot be removed, and is not.
    published.ninerec(raw)
    (raw / "KU_pair.csv").write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        prepare(PrepareConfig.of(source="ninerec", raw=str(raw), **TINY), mine)
    assert not list(mine.iterdir())


def test_only_broken_pictures_are_refused_by_name(tmp_path, raw):
    published.ninerec(raw)
    images = tmp_path / "images"
    images.mkdir()
    for k in "abcdefg":
        (images / f"v{k}.png").write_text("broken")
    config = PrepareConfig.of(source="ninerec", raw=str(raw), images=str(images), **TINY)
    with pytest.raises(UserError, match=r"none of the 7 pictures can be used.*vf\.png: cannot"):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_problems_of_inputs_are_not_blamed_on_the_output(tmp_path, raw):
    published.mmrec(raw)
    (raw / "image_feat.npy").unlink()
    (raw / "image_feat.npy").mkdir()
    with pytest.raises(UserError, match=r"image_feat\.npy: is a folder, expected a plain file"):
        prepare(PrepareConfig.of(source="mmrec", raw=str(raw)), tmp_path / "out")
    long = PrepareConfig.of(source="mmrec", raw="x" * 300)
    with pytest.raises(UserError, match="x: cannot be used"):
        prepare(long, tmp_path / "out")


def test_another_process_between_check_and_lock(tmp_path, shop, monkeypatch):
    """The folder becomes somebody's finished data set after it was looked at, before the lock."""
    out = tmp_path / "out"
    real = folder_module.locked

    def late(folder):
        shutil.rmtree(folder)
        shutil.copytree(shop, folder)
        return real(folder)

    monkeypatch.setattr(folder_module, "locked", late)
    with pytest.raises(UserError, match="--seed was 0, now 1"):
        prepare(PrepareConfig.of(**SHOP, seed=1), out)
    assert content(out).keys() - {".lock"} == content(shop).keys()


def test_an_unfinished_one_with_other_settings_is_left_alone(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(PrepareConfig.of(**SHOP), out, KilledAfter(4))
    with pytest.raises(UserError, match=r"--batch was 4, now 5"):
        prepare(PrepareConfig.of(**SHOP | {"batch": 5}), out)
    with pytest.raises(UserError, match=r"--clip was random:tiny, now random:vit-b-32"):
        prepare(PrepareConfig.of(**SHOP | {"clip": "random:vit-b-32"}), out)


def test_training_on_random_features_says_so(shop):
    (note,) = read_folder(shop, needs_content=True).notes
    assert "random:tiny" in note
    assert "without pretrained knowledge" in note


@pytest.mark.parametrize(("same", "told"), [((), 0), ((1,), 0), ((2,), 0), ((3,), 1), ((4,), 1)])
def test_ties_that_decide_a_split_are_told(tmp_path, raw, same, told):
    """Events `same` of one user of two have the time of the event before them."""
    rows = ["user,item,time"]
    for user in ("ann", "bob"):
        times = list(range(5))
        for k in same if user == "bob" else ():
            times[k] = times[k - 1]
        rows += [f"{user},{item},{time}" for item, time in enumerate(times)]
    (raw / "log.csv").write_text("\n".join([*rows, ""]))
    columns = {"user_column": "user", "item_column": "item", "time_column": "time"}
    config, notes = PrepareConfig.of(source="csv", raw=str(raw), **columns), Notes()
    summary = prepare(config, tmp_path / "out", notes).summary
    assert summary["users_split_by_file_order"] == told
    assert ("1 of 2 users have a validation or test item at the same time" in notes.text()) == told


def test_a_split_by_moments_becomes_a_data_set(tmp_path):
    settings = SHOP | {"clients": 100, "split": "global_time"}
    notes = Notes()
    summary = prepare(PrepareConfig.of(**settings), tmp_path / "out", notes).summary
    table = pd.read_csv(tmp_path / "out" / "inter.csv")
    valid, test = (summary["split_moments"][name] for name in ("valid", "test"))
    assert table.loc[table["split_label"] == 0, "timestamp"].max() < valid
    assert table.loc[table["split_label"] == 1, "timestamp"].between(valid, test, "left").all()
    assert table.loc[table["split_label"] == 2, "timestamp"].min() >= test
    assert not table[table["split_label"] > 0].duplicated(["userID", "split_label"]).any()
    data = read_folder(tmp_path / "out", needs_content=True).interactions
    assert (data.valid >= 0).sum() == summary["kept"]["valid"] > 0
    assert (data.test >= 0).sum() == summary["kept"]["test"] > 0
    left_out = summary["left_out_by_split"]
    assert f"{left_out['users']:,} users without an earlier interaction" in notes.text()
    with pytest.raises(UserError, match=r"--split was global_time, now leave_one_out"):
        prepare(PrepareConfig.of(**SHOP), tmp_path / "out")


def test_a_data_set_of_before_there_were_splits_is_finished(tmp_path):
    out = tmp_path / "out"
    prepare(PrepareConfig.of(**SHOP), out)
    summary = json.loads((out / "dataset.json").read_text())
    for name in ("split", "held_out_share"):
        del summary["settings"][name]
    (out / "dataset.json").write_text(json.dumps(summary))
    notes = Notes()
    prepare(PrepareConfig.of(**SHOP), out, notes)
    assert "nothing to do" in notes.text()
