"""Pictures from a folder that is not trusted."""

import os
import resource
import struct
import time

import numpy as np
import PIL
import pytest
from PIL import ExifTags, Image

from fedvlr_jax.data import pictures
from fedvlr_jax.data.pictures import PictureError, PictureFolder, quiet_decoders
from fedvlr_jax.errors import UserError
from tests.data import hostile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return hostile.fill(root / "images", root / "outside")


@pytest.mark.parametrize("name", hostile.GOOD)
def test_odd_pictures_are_read(folder, name):
    with quiet_decoders():
        picture = PictureFolder(folder).open(name)
    assert picture.mode == "RGB"
    pixels = np.asarray(picture)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 10 or name == "moving.gif"


# What makes the stored pixels upright, by the EXIF orientation.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def corners(height, width):
    """A picture whose four corners differ."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (250, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 250, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 250)
    return pixels


def oriented(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("large", [False, True])
def test_pictures_stand_upright(tmp_path, monkeypatch, name, orientation, large):
    if large:
        monkeypatch.setattr(pictures, "_LARGE", 100)
        monkeypatch.setattr(pictures, "_SMALLER_SIDE", 16)
    stored = corners(32, 64)
    form = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}
    Image.fromarray(stored).save(tmp_path / name, exif=oriented(orientation), **form.get(name, {}))
    with quiet_decoders():
        found = np.asarray(PictureFolder(tmp_path).open(name)).astype(int)
    expected = UPRIGHT[orientation](stored[::2, ::2] if large else stored).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 12


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "F"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_every_kind_of_tiff_stands_upright(tmp_path, orientation, mode, compression):
    stored = Image.fromarray(corners(32, 64)).convert("L" if mode == "I;16" else mode)
    shown = np.asarray(stored.convert("RGB")).astype(int)
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stored.save(tmp_path / "a.tif", exif=oriented(orientation), compression=compression)
    found = np.asarray(PictureFolder(tmp_path).open("a.tif")).astype(int)
    expected = UPRIGHT[orientation](shown)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 3


def test_a_png_may_tell_its_orientation_behind_its_pixels(tmp_path):
    Image.fromarray(corners(32, 64)).save(tmp_path / "a.png", exif=oriented(6))
    content = (tmp_path / "a.png").read_bytes()
    at = content.index(b"eXIf") - 4
    chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4])]
    end = len(content) - 12
    assert content[end + 4 :].startswith(b"IEND")
    (tmp_path / "a.png").write_bytes(
        content[:at] + content[at + len(chunk) : end] + chunk + content[end:]
    )
    assert PictureFolder(tmp_path).open("a.png").size == (32, 64)


def tags(*entries):
    """EXIF of such entries: tag, type, count, and what they hold or where it is."""
    packed = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II",
        b"Exif\0\0XX*\0\x08\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0" + bytes(60_000),
        oriented(0).tobytes(),
        oriented(9).tobytes(),
        oriented(65535).tobytes(),
        tags((0x112, 2, 2, b"6\0\0\0")),
        tags((0x112, 12, 1, b"\6\0\0\0")),
        oriented(6).tobytes()[:-8],
        tags(*((1000 + k, 1, 60_000, b"\x08\0\0\0") for k in range(5000))),
        tags(*((1000 + k, 1, 2**31, b"\x08\0\0\0") for k in range(5000))),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_an_orientation_that_is_broken_is_none(tmp_path, name, exif):
    Image.fromarray(corners(32, 64)).save(tmp_path / name, exif=exif)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with quiet_decoders():
        assert PictureFolder(tmp_path).open(name).size == (64, 32)
    assert time.process_time() - begun < 2
    # Pillow below 13 reads all tags when it opens a JPEG, here 5000 of 60 kB at most.
    most = 100_000 if int(PIL.__version__.split(".")[0]) >= 13 else 400_000  # kilobytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < most


def test_sixteen_bits_become_eight_by_scaling(folder):
    expected = np.linspace(0, 65535, 1600).reshape(40, 40) / 257
    for name in ("deep.png", "deep.tif"):
        pixels = np.asarray(PictureFolder(folder).open(name)).astype(float)
        assert np.abs(pixels - expected[..., None]).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_any_range_become_eight_bits(tmp_path, kind):
    values = np.linspace(-500, 90000, 1600).reshape(40, 40).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.tif")
    pixels = np.asarray(PictureFolder(tmp_path).open("a.tif"))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_of_a_moving_picture_the_first_frame_is_taken(folder):
    pixels = np.asarray(PictureFolder(folder).open("moving.gif"))
    np.testing.assert_array_equal(pixels[0, 0], [255, 0, 0])


@pytest.mark.parametrize(("name", "reason"), hostile.REASONS.items())
def test_hostile_pictures_are_refused_and_cost_little(folder, name, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with quiet_decoders(), pytest.raises(PictureError, match=reason):
        PictureFolder(folder).open(name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes


@pytest.mark.parametrize(
    "name",
    ["../outside/secret.jpg", "linked/secret.jpg", "/etc/passwd", "a/../../outside/secret.jpg"],
)
def test_nothing_outside_is_opened(folder, name, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(PictureError, match="leads out of the folder"):
        PictureFolder(folder).open(name)


def test_large_pictures_are_made_smaller_one_at_a_time(tmp_path):
    picture = Image.linear_gradient("L").resize((4096, 2048))
    picture.convert("1").save(tmp_path / "large.png")
    picture.resize((2000, 1000)).save(tmp_path / "small.png")
    found = PictureFolder(tmp_path).open("large.png")
    assert found.size == (2048, 1024)
    assert PictureFolder(tmp_path).open("small.png").size == (2000, 1000)
    # What the encoder is shown is nearly what it would have been shown.
    whole = np.asarray(picture.convert("1").convert("RGB").resize((64, 32), Image.BICUBIC), float)
    ours = np.asarray(found.resize((64, 32), Image.BICUBIC), float)
    assert np.abs(whole - ours).max() < 8


def test_names_that_are_no_text_are_left_out(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "line\nend.png").write_bytes((tmp_path / "a.png").read_bytes())
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write((tmp_path / "a.png").read_bytes())
    assert PictureFolder(tmp_path).by_stem() == {"a": "a.png"}


def test_names_that_are_no_paths(folder):
    for name in ("a\0b.jpg", "x" * 5000, "", "."):
        with pytest.raises(PictureError):
            PictureFolder(folder).open(name)


def test_items_find_the_picture_that_is_named_after_them(tmp_path):
    for name in ("b/A1.JPG", "A2.png", "a/A2.jpg", "A3.txt", "A4.tar.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    folder = PictureFolder(tmp_path)
    found = folder.locate(None, ["A1", "A2", "A3", "A4.tar", "../A2", "a/A2"])
    assert found == [os.path.join("b", "A1.JPG"), "A2.png", None, "A4.tar.png", None, None]
    (tmp_path / "7.0.jpg").write_bytes(b"")
    (tmp_path / "8.0.jpg").write_bytes(b"")
    (tmp_path / "8.jpg").write_bytes(b"")
    (tmp_path / "v1.0.jpg").write_bytes(b"")
    assert folder.locate(None, ["7", "8", "v1", "v1.0", "0"]) == [
        "7.0.jpg", "8.jpg", None, "v1.0.jpg", None,
    ]  # fmt: skip
    assert folder.locate({"x": "A2.png"}, ["x", "y"]) == ["A2.png", None]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        PictureFolder(tmp_path / "no")


def test_a_changed_picture_has_another_state(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    folder = PictureFolder(tmp_path)
    before = folder.states(["a.png", None, "no.png"])
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    after = folder.states(["a.png", None, "no.png"])
    assert before[0] != after[0]
    assert before[1:] == after[1:] == [None, ("no.png", -1, -1)]
