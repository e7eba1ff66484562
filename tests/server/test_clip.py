"""The encoder against what transformers' models computed, in 4.57 and, where it is, in torch."""

import json
import os
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from PIL import Image
from safetensors.numpy import load_file, save_file

from fedvlr_jax.errors import UserError
from fedvlr_jax.server import clip
from fedvlr_jax.server.clip_model import ClipConfig, TextTower, VisionTower
from fedvlr_jax.server.encode import Encoder
from tests.server import clips


@pytest.fixture(scope="module", autouse=True)
def _shapes_found_once():
    with clips.shapes_found_once():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips.save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures():
    return clips.pictures()


@pytest.fixture(scope="module")
def reference():
    with np.load(clips.REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def direct(reference):
    """Unit rows of every picture and title, straight from transformers, one at a time."""
    return reference["pictures"], reference["titles"]


def towers(config, params):
    """Features of the pictures and texts in `clips`, by their names in the reference."""
    texts, images = (jax.jit(kind(config, jnp.float32).apply) for kind in (TextTower, VisionTower))
    tokens, all_there = jnp.array(clips.TOKENS), jnp.ones(clips.TOKENS.shape, int)
    return {
        "images": images({"params": params}, jnp.array(clips.pixels())),
        "texts": texts({"params": params}, tokens, jnp.array(clips.THERE, int)),
        "texts_unpadded": texts({"params": params}, tokens, all_there),
    }


@pytest.mark.parametrize("name", clips.CONFIGS)
def test_towers_equal_those_of_transformers(name, reference):
    config = clips.CONFIGS[name]
    for what, found in towers(config, clips.drawn(config)).items():
        expected = reference[f"{name}_{what}"]
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", clips.CONFIGS)
def test_towers_equal_those_of_pytorch(name, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from transformers import CLIPModel

    config = clips.CONFIGS[name]
    clips.write(tmp_path, config, clips.drawn(config))
    clips.as_pytorch(tmp_path)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = CLIPModel.from_pretrained(tmp_path).eval()
        tokens, there = torch.tensor(clips.TOKENS), torch.tensor(clips.THERE, dtype=torch.int64)
        expected = {
            "images": model.get_image_features(torch.tensor(clips.pixels())),
            "texts": model.get_text_features(tokens, there),
            "texts_unpadded": model.get_text_features(tokens),
        }
    for what, found in towers(config, clips.drawn(config)).items():
        values = getattr(expected[what], "pooler_output", expected[what])  # 5 gives more at once
        np.testing.assert_allclose(found, values.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", clips.CONFIGS)
def test_both_formats_of_weights_bring_them_back(name, tmp_path):
    config = clips.CONFIGS[name]
    params = clips.drawn(config)
    clips.write(tmp_path, config, params)
    for _ in range(2):
        found = clip._fitting(clip._stored_weights(tmp_path), config)
        jax.tree.map(np.testing.assert_array_equal, found, params)
        if (tmp_path / "flax_model.msgpack").exists():
            clips.as_pytorch(tmp_path)


@pytest.mark.parametrize(("dtype", "stated"), [("float32", True), ("bfloat16", False)])
def test_float32_is_computed_in_float32_on_every_device(dtype, stated):
    model = clip.load("random:tiny", precision=dtype)
    for embed, example in (
        (model.embed_images, model.pixels(Image.new("RGB", (9, 9)))),
        (model.embed_texts, model.tokens("a")),
    ):
        program = str(jax.make_jaxpr(embed)(model.params, example[None]))
        products = program.count("dot_general[") + program.count("conv_general_dilated[")
        assert products > 10
        # Of both operands.
        assert program.count("Precision.HIGHEST") == (2 * products if stated else 0)


def test_a_configuration_is_read_as_transformers_does():
    assert ClipConfig.stored({"model_type": "clip"}) == ClipConfig()
    text = {"hidden_size": 24, "num_attention_heads": 3}
    stored = {"model_type": "clip", "projection_dim": 7, "text_config": text, "other": 1}
    found = ClipConfig.stored(stored)
    assert (found.projection_dim, found.text_config.hidden_size) == (7, 24)
    assert found.text_config.vocab_size == 49408
    # OpenAI's larger models have both, and this one counts, as a whole.
    both = ClipConfig.stored(stored | {"text_config_dict": {"num_attention_heads": 4}})
    assert (both.text_config.hidden_size, both.text_config.num_attention_heads) == (512, 4)


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
        ("text", clips.TITLES, direct[1]),
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
    nearest = shutil.copytree(folder, tmp_path / "nearest")
    clips.edit(nearest, "preprocessor_config.json", resample=0)
    digests.add(clip.load(str(nearest)).digest)
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
    refused(tmp_path / "empty", "cannot be loaded", "expected config.json")

    def copy(name):
        return shutil.copytree(folder, tmp_path / name)

    (copy("cut") / "flax_model.msgpack").write_bytes(b"cut")
    refused(tmp_path / "cut", "cannot be loaded")
    (copy("weightless") / "flax_model.msgpack").unlink()
    refused(tmp_path / "weightless", "cannot be loaded")
    (copy("junk") / "config.json").write_text("{")
    refused(tmp_path / "junk", "cannot be loaded")
    clips.edit(copy("bert"), "config.json", model_type="bert")
    refused(tmp_path / "bert", "cannot be loaded")
    (copy("blind") / "preprocessor_config.json").unlink()
    refused(tmp_path / "blind", "cannot be loaded")
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (folder / name).exists() and (copy(f"no-{name}") / name).unlink()
    clips.edit(copy("wider"), "config.json", projection_dim=64)
    refused(tmp_path / "wider", "cannot be loaded")
    damaged = copy("damaged")
    clips.as_pytorch(damaged)
    whole = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(damaged, "cannot be loaded")


@pytest.mark.parametrize("convert", [None, clips.as_pytorch])
def test_a_model_of_the_hub_is_taken_from_where_it_is_kept(folder, tmp_path, monkeypatch, convert):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--some--clip"
    shutil.copytree(folder, kept / "snapshots" / "0123")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    if convert:
        convert(kept / "snapshots" / "0123")
    model = clip.load("some/clip")
    assert (model.name, model.pretrained) == ("some/clip", True)
    assert model.digest == clip.load(str(folder)).digest
    refused("some/other", "cannot be loaded")


def shards(folder, count):
    """Split the weights as the large models of the hub are."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(weights), {}
    for k in range(count):
        file = f"model-{k + 1:05}-of-{count:05}.safetensors"
        places |= dict.fromkeys(names[k::count], file)
        part = {name: weights[name] for name in names[k::count]}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def safe(folder, tmp_path_factory):
    """The model as PyTorch's are published."""
    other = shutil.copytree(folder, tmp_path_factory.mktemp("safe") / "whole")
    clips.as_pytorch(other)
    return other


@pytest.mark.parametrize("count", [1, 2, 5])
def test_weights_in_several_files_are_the_same_model(folder, safe, tmp_path, count):
    other = shutil.copytree(safe, tmp_path / "shards")
    shards(other, count)
    model, whole = clip.load(str(other)), clip.load(str(folder))
    assert model.digest == whole.digest
    for name in other.glob("model-*1-of-*"):
        name.unlink()
    refused(other, "cannot be loaded", "model-00001-of-")


def test_a_picture_processor_may_be_part_of_a_common_file(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    stored = (other / "preprocessor_config.json").rename(other / "processor_config.json")
    stored.write_text(json.dumps({"image_processor": json.loads(stored.read_text())}))
    assert clip.load(str(other)).digest == clip.load(str(folder)).digest


def weights(folder, change):
    """Change the tensors in place."""
    found = load_file(folder / "model.safetensors")
    save_file(change(found), folder / "model.safetensors", metadata={"format": "pt"})


def with_one(value):
    def change(found):
        found["visual_projection.weight"][3, 3] = value
        return found

    return change


def tower(name, **changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        clips.edit(folder, "config.json", **{name: config[name] | changes})

    return change


def pictures_are(**changes):
    return lambda folder: clips.edit(folder, "preprocessor_config.json", **changes)


def without(*names):
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


EDGES = {"height": 96, "width": 96}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pictures_are(do_center_crop=False), ["32 x 64", "64 x 128", "the model takes 64 x 64"]),
        (pictures_are(size={"shortest_edge": 96}, crop_size=EDGES), ["96 x 96", "64 x 64"]),
        (pictures_are(crop_size={"height": 64, "width": 32}), ["32 x 64", "64 x 64"]),
        (pictures_are(do_resize=False, do_center_crop=False), ["32 x 32", "64 x 64"]),
        (pictures_are(size={"shortest_edge": 10**6}), ["edge", "1000000", "4,096"]),
        (pictures_are(size={"shortest_edge": -5}), ["edge", "-5"]),
        (pictures_are(image_mean=[0.5, 0.5]), ["cannot be loaded"]),
        (pictures_are(image_mean="x"), ["cannot be loaded"]),
        (pictures_are(image_mean=[0.5, float("nan"), 0.5]), ["not finite"]),
        (pictures_are(image_std=[0.2, 0, 0.2]), ["image_std", "holds 0"]),
        (pictures_are(resample=99), ["resampling filter"]),
        (
            without("preprocessor_config.json", "processor_config.json"),
            ["no picture processor there"],
        ),
        (without("tokenizer.json", "vocab.json"), ["no tokenizer there", "vocab.json"]),
        (without("model.safetensors"), ["no weights there", "model.safetensors"]),
        (written("preprocessor_config.json", b"[]"), ["cannot be loaded"]),
        (written("tokenizer.json", b"{}"), ["cannot be loaded"]),
        (written("config.json", b"[" * 20_000), ["cannot be loaded"]),
        (written("model.safetensors", b"version https://git-lfs.github.com/spec/v1"), []),
        (tower("vision_config", image_size=96), ["(37, 128)", "(17, 128)"]),
        (tower("vision_config", patch_size=0), ["patch_size is 0"]),
        (tower("vision_config", num_hidden_layers=3), ["16 weights are missing"]),
        (
            tower("vision_config", num_hidden_layers=1),
            ["model.encoder.layers.1.", "num_hidden_layers too small"],
        ),
        (
            tower("text_config", num_hidden_layers=1),
            ["model.encoder.layers.1.", "num_hidden_layers too small"],
        ),
        (tower("vision_config", num_hidden_layers=10**9), ["num_hidden_layers is 1000000000"]),
        (tower("vision_config", hidden_size=12 * 10**8, num_attention_heads=12), ["GB of memory"]),
        (tower("text_config", num_attention_heads=3), ["128 and 3 heads"]),
        (tower("text_config", vocab_size=100), ["(100, 128)"]),
        (tower("text_config", eos_token_id=3), ["token 513", "expects 3"]),
        (tower("text_config", hidden_act="none"), ["cannot be loaded"]),
        (lambda folder: clips.edit(folder, "config.json", text_config="x"), ["cannot be loaded"]),
        (lambda folder: weights(folder, with_one(np.nan)), ["1 weights hold NaN", "visual"]),
        (lambda folder: weights(folder, with_one(np.inf)), ["1 weights hold NaN or inf"]),
        (lambda folder: weights(folder, lambda found: {"x": found["logit_scale"]}), ["missing"]),
    ],
)
def test_folders_that_are_not_whole_are_refused_by_a_sentence(safe, tmp_path, change, words):
    other = shutil.copytree(safe, tmp_path / "other")
    change(other)
    refused(other, *words)


def index_is(content):
    def change(folder):
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "pipe.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["no weight_map"]),
        ({"metadata": {}, "weight_map": []}, ["no weight_map"]),
        ({"weight_map": {"a": "pipe.safetensors"}}, ["metadata"]),
        ({"metadata": {}, "weight_map": {"a": 3}}, ["names '3'", "same folder"]),
        ({"metadata": {}, "weight_map": {"a": "../a.safetensors"}}, ["'../a.safetensors'"]),
        ({"metadata": {}, "weight_map": {"a": "/a.safetensors"}}, ["'/a.safetensors'"]),
        (
            {"metadata": {}, "weight_map": {"a": "gone.safetensors"}},
            ["gone.safetensors is missing"],
        ),
        ({"metadata": {}, "weight_map": {"a": "pipe.safetensors"}}, ["no plain file"]),
    ],
)
def test_weights_are_looked_for_among_plain_files_of_the_folder(safe, tmp_path, content, words):
    other = shutil.copytree(safe, tmp_path / "other")
    index_is(content)(other)
    refused(other, *words)


def test_a_pipe_beside_the_weights_is_not_waited_for(safe, tmp_path):
    other = shutil.copytree(safe, tmp_path / "other")
    os.mkfifo(other / "pipe.safetensors")
    assert clip.load(str(other)).digest == clip.load(str(safe)).digest


def test_a_tokenizer_with_more_words_than_the_model_knows_is_refused(safe, tmp_path):
    other = shutil.copytree(safe, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zebra</w>"] = 514
    clips.edit(other, "tokenizer.json", model=tokenizer["model"])
    refused(other, "tokens up to 514", "the model knows 514")


@pytest.mark.parametrize(
    "change",
    [
        pictures_are(do_center_crop=False, size={"height": 64, "width": 64}),
        pictures_are(size=64, crop_size=64),
        pictures_are(size={"shortest_edge": 80}),
        without("tokenizer.json"),
        without("vocab.json", "merges.txt"),
        without("tokenizer_config.json", "special_tokens_map.json"),
        lambda folder: weights(folder, lambda found: {k: v.astype("f2") for k, v in found.items()}),
    ],
)
def test_other_folders_that_are_whole_are_loaded(safe, tmp_path, change):
    other = shutil.copytree(safe, tmp_path / "other")
    change(other)
    model = clip.load(str(other))
    assert model.pixels(Image.new("RGB", (30, 50))).shape == (3, 64, 64)


def test_half_a_clip_is_refused(folder, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    weights = serialization.msgpack_restore((half / "flax_model.msgpack").read_bytes())
    del weights["text_projection"]
    (half / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(weights))
    refused(half, "1 weights are missing", "text_projection.kernel")
