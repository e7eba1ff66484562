"""The encoder against `FlaxCLIPModel` called directly, one real picture at a time."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from transformers import CLIPProcessor, FlaxCLIPModel

from fedvlr_jax.errors import UserError
from fedvlr_jax.server import clip
from fedvlr_jax.server.encode import Encoder
from tests.server import clips

TITLES = [
    "A cup of coffee",
    "",
    "Ein Gerät für Kaffee: 咖啡",
    "word " * 200,
    "The title is missing.",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips.save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures():
    return clips.pictures()


@pytest.fixture(scope="module")
def direct(folder, pictures):
    """Unit rows of every picture and title, straight from transformers."""
    model = FlaxCLIPModel.from_pretrained(folder)
    processor = CLIPProcessor.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings

    def unit(row):
        return np.asarray(row)[0] / np.linalg.norm(row)

    # Titles of one length are compiled once.
    image_features, text_features = map(
        jax.jit, (model.get_image_features, model.get_text_features)
    )
    images = [
        unit(image_features(processor(images=p, return_tensors="np")["pixel_values"]))
        for p in pictures
    ]
    texts = [
        unit(
            text_features(
                **processor(
                    text=[title],
                    return_tensors="np",
                    padding=True,
                    truncation=True,
                    max_length=length,
                )
            )
        )
        for title in TITLES
    ]
    return np.stack(images), np.stack(texts)


def encoded(model, inputs, modality, **settings):
    load = model.pixels if modality == "image" else model.tokens
    encoder = Encoder(
        model.embed_images if modality == "image" else model.embed_texts,
        model.params,
        np.zeros_like(load(inputs[0])),
        **settings,
    )
    return np.concatenate(list(encoder.rows(lambda k: load(inputs[k]), 0, len(inputs))))


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_equals_the_model_called_directly(folder, pictures, direct, batch, devices):
    model = clip.load(str(folder))
    for modality, inputs, expected in (
        ("image", pictures, direct[0]),
        ("text", TITLES, direct[1]),
    ):
        found = encoded(model, inputs, modality, batch=batch, devices=devices)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_pictures_and_titles_differ(direct):
    for rows in direct:
        nearness = rows @ rows.T
        assert (nearness[np.triu_indices(len(rows), 1)] < 0.99999).all()


def test_pytorch_weights_give_the_same(folder, pictures, direct, tmp_path):
    other = shutil.copytree(folder, tmp_path / "pt")
    clips.as_pytorch(other)
    model, whole = clip.load(str(other)), clip.load(str(folder))
    found = encoded(model, pictures, "image", batch=5)
    np.testing.assert_allclose(found, direct[0], rtol=0, atol=1e-5)
    assert model.digest == whole.digest
    assert model.pretrained
    assert model.width == 128


def test_bfloat16_is_near(folder, pictures, direct):
    model = clip.load(str(folder), precision="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.params)} == {"bfloat16"}
    found = encoded(model, pictures, "image", batch=5)
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - direct[0]).max() < 0.02


def test_the_digest_is_of_the_content(folder, tmp_path):
    digests = {clip.load(str(folder)).digest}
    other = clips.save(tmp_path / "seed", seed=1)
    digests.add(clip.load(str(other)).digest)
    crop = shutil.copytree(folder, tmp_path / "crop")
    path = crop / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    digests.add(clip.load(str(crop)).digest)
    assert len(digests) == 3


def test_random_weights_say_so_and_follow_the_seed():
    first, again, other = (clip.load("random:tiny", seed=seed) for seed in (0, 0, 1))
    assert not first.pretrained
    assert first.describe()["pretrained"] is False
    assert first.digest == again.digest != other.digest
    # Features that tell pictures apart, as a dry run needs.
    found = encoded(first, clips.pictures(), "image", batch=10)
    nearness = found @ found.T
    assert nearness[np.triu_indices(len(found), 1)].mean() < 0.98


def test_pixels_are_bytes_of_one_shape():
    model = clip.load("random:tiny")
    for size in ((1, 1), (3, 40), (64, 64), (500, 20)):
        pixels = model.pixels(Image.new("RGB", size, (9, 8, 7)))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (3, 64, 64)
        np.testing.assert_array_equal(pixels[:, 32, 32], [9, 8, 7])


def refused(name, *words):
    with pytest.raises(UserError) as caught:
        clip.load(str(name))
    sentence = str(caught.value)
    assert sentence.startswith(f"--clip={name}: ")
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_what_is_no_clip(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(tmp_path / "no", "no such folder")
    refused("nothing", "no such folder")
    refused("random:huge", "random:tiny")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json")

    def copy(name):
        return shutil.copytree(folder, tmp_path / name)

    (copy("cut") / "flax_model.msgpack").write_bytes(b"cut")
    refused(tmp_path / "cut", "cannot be loaded")
    (copy("weightless") / "flax_model.msgpack").unlink()
    refused(tmp_path / "weightless", "cannot be loaded")
    (copy("junk") / "config.json").write_text("{")
    refused(tmp_path / "junk", "cannot be loaded")
    clips.edit_config(copy("bert"), model_type="bert")
    refused(tmp_path / "bert", "cannot be loaded")
    (copy("blind") / "preprocessor_config.json").unlink()
    refused(tmp_path / "blind", "cannot be loaded")
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (folder / name).exists() and (copy(f"no-{name}") / name).unlink()
    clips.edit_config(copy("wider"), projection_dim=64)
    refused(tmp_path / "wider", "cannot be loaded")
    damaged = copy("damaged")
    clips.as_pytorch(damaged)
    whole = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(damaged, "cannot be loaded")


def test_half_a_clip_is_refused(folder, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    model = FlaxCLIPModel.from_pretrained(folder)
    params = dict(model.params)
    del params["text_projection"]
    model.save_pretrained(half, params=params)
    refused(half, "1 weights are missing", "text_projection/kernel")
