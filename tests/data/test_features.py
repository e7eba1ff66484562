"""Arrays that are not trusted: judged by header, size and each other before they are read."""

import io
import os
import resource
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.data import features
from fedvlr_jax.data.features import find_features, open_features
from fedvlr_jax.errors import UserError

PLAIN = {"descr": "<f4", "fortran_order": False, "shape": (5, 6)}
NUMBERS = np.arange(30, dtype=np.float32).reshape(5, 6)


def read(path):
    """The one array of a folder."""
    (found,) = find_features(path.parent).values()
    assert found.path == path
    return found.read()


def header(content, version=(1, 0)):
    text = content if isinstance(content, bytes) else repr(content).encode()
    text += b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path.parent))
    assert path.name in sentence
    assert len(sentence) < 400
    assert sentence.isprintable()
    for word in words:
        assert word in sentence, sentence


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8", ">f8", "<i8", "u1", ">i2", "<f16"])
def test_every_plain_array_is_read_as_numpy_reads_it(tmp_path, monkeypatch, version, order, kind):
    monkeypatch.setattr(features, "_BLOCK", 16)
    path = tmp_path / "image_features.npy"
    file = io.BytesIO()
    expected = np.asarray(NUMBERS, kind, order=order)
    np.lib.format.write_array(file, expected, version if version < (3, 0) else (2, 0))
    content = bytearray(file.getvalue())
    content[6] = version[0]
    path.write_bytes(content)
    found = read(path)
    assert found.dtype == (np.float16 if kind == "<f2" else np.float32)
    np.testing.assert_array_equal(found, NUMBERS)


@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 400),
    st.sampled_from("CF"),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -2e16, 1e300]),
    st.data(),
)
def test_numbers_that_cannot_be_computed_with_are_told_by_row(
    tmp_path_factory, rows, width, block, order, wrong, data
):
    path = tmp_path_factory.mktemp("features") / "image_features.npy"
    values = np.ones((rows, width), order=order)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, width - 1))
    before, features._BLOCK = features._BLOCK, block
    try:
        np.save(path, values)
        np.testing.assert_array_equal(read(path), values)
        values[row, column] = wrong
        np.save(path, values)
        shown = "NaN" if np.isnan(wrong) else f"{wrong:.4g}"
        refused(path, f"row {row} holds {shown}", "float32")
    finally:
        features._BLOCK = before


def test_features_that_are_let_in_have_finite_lengths():
    row = np.full(4096, features._LARGEST, np.float32)
    assert np.isfinite(row @ row)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(PLAIN) + bytes(119), ["119 bytes", "120", "(5, 6)"]),
        (header(PLAIN) + bytes(121), ["121 bytes", "120"]),
        (header(PLAIN) + bytes(240), ["240 bytes", "120"]),
        (header(PLAIN), ["0 bytes"]),
        (header(PLAIN | {"shape": (10**30, 10**30)}) + bytes(120), ["120 bytes"]),
        (header(PLAIN | {"shape": (2**62, 512)}) + bytes(120), ["120 bytes"]),
        (header(PLAIN | {"shape": (-5, 6)}) + bytes(120), ["(-5, 6)", "(items, width)"]),
        (header(PLAIN | {"shape": (-5, -6)}) + bytes(120), ["(-5, -6)", "(items, width)"]),
        (header(PLAIN | {"shape": (5, 0)}), ["(5, 0)", "(items, width)"]),
        (header(PLAIN | {"shape": (0, 6)}), ["(0, 6)", "(items, width)"]),
        (header(PLAIN | {"shape": ()}) + bytes(4), ["()", "(items, width)"]),
        (header(PLAIN | {"shape": (5, 6, 1)}) + bytes(120), ["(5, 6, 1)"]),
        (header(PLAIN | {"shape": (1,) * 2000}) + bytes(4), ["(items, width)"]),
        (header(PLAIN | {"shape": 30}) + bytes(120), ["not a plain numpy array"]),
        (header(PLAIN | {"shape": (5.0, 6)}) + bytes(120), ["not a plain numpy array"]),
        (header(PLAIN | {"descr": "|O"}) + bytes(240), ["not a plain", "Python objects"]),
        (header(PLAIN | {"descr": "<c8"}) + bytes(240), ["complex64", "expected numbers"]),
        (header(PLAIN | {"descr": "|b1"}) + bytes(30), ["bool", "expected numbers"]),
        (header(PLAIN | {"descr": "<U9"}) + bytes(1080), ["expected numbers"]),
        (header(PLAIN | {"descr": [("a", "<f4")]}) + bytes(120), ["expected numbers"]),
        (header(PLAIN | {"descr": ()}) + bytes(120), ["not a plain numpy array"]),
        (header(PLAIN | {"descr": "(((("}) + bytes(120), ["not a plain numpy array"]),
        (header(b"{" * 5000) + bytes(120), ["not a plain numpy array"]),
        (header(b"9" * 6000) + bytes(120), ["not a plain numpy array"]),
        (header(b"__import__('os').abort()") + bytes(120), ["not a plain numpy array"]),
        (header(b" " * 70_000, (2, 0)) + bytes(120), ["a header of 70,001 bytes"]),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", ["a header of 4,294,967,295 bytes"]),
        (header(PLAIN, (9, 0)) + bytes(120), ["not a plain numpy array"]),
        (header(PLAIN)[:20], ["not a plain numpy array"]),
        (b"", ["not a plain numpy array"]),
        (b"PK\x03\x04half of an archive", ["not a plain numpy array"]),
        (b"\x1f\x8b" + bytes(200), ["not a plain numpy array"]),
        (b"\x80\x04\x95cos\nabort\n.", ["not a plain numpy array"]),
    ],
)
def test_what_is_no_array_of_features_is_refused_by_its_header(tmp_path, content, words):
    path = tmp_path / "image_features.npy"
    path.write_bytes(content)
    refused(path, *words)


def sparse(path, rows, width, kind="<f4"):
    """A file of any size that takes nearly no place on the disk."""
    head = header({"descr": kind, "fortran_order": False, "shape": (rows, width)})
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + rows * width * np.dtype(kind).itemsize)


def test_numbers_of_rows_are_compared_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(features.FeatureFile, "read", None)
    sparse(tmp_path / "image_features.npy", 2_000_000, 2048)
    sparse(tmp_path / "text_features.npy", 2_000_001, 512)
    with pytest.raises(UserError, match=r"2000000 rows and text_features\.npy 2000001"):
        find_features(tmp_path)


def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    sparse(tmp_path / "image_features.npy", 2**30, 2**10)
    refused(tmp_path / "image_features.npy", "GB of memory")
    # Two that fit alone, but not together.
    for modality in ("image", "text"):
        np.save(tmp_path / f"{modality}_features.npy", NUMBERS)
    monkeypatch.setattr(features, "host_bytes", lambda: 239)
    (tmp_path / "image_features.npy").rename(tmp_path / "other.npy")
    read(tmp_path / "text_features.npy")
    (tmp_path / "other.npy").rename(tmp_path / "image_features.npy")
    with pytest.raises(UserError, match=r"image_features\.npy and text_features\.npy need"):
        find_features(tmp_path)


def test_the_check_takes_no_memory_of_the_arrays_size(tmp_path):
    sparse(tmp_path / "image_features.npy", 2_000_000, 16, "<f2")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(tmp_path / "image_features.npy").shape == (2_000_000, 16)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64_000 + 60_000  # kilobytes: the array's, and a few blocks'


def test_pipes_folders_and_links_to_nowhere_are_not_waited_for(tmp_path):
    path = tmp_path / "image_features.npy"
    assert find_features(tmp_path) == {}
    os.mkfifo(path)
    refused(path, "is a pipe, expected a plain file")
    path.unlink()
    path.mkdir()
    refused(path, "is a folder, expected a plain file")
    path.rmdir()
    path.symlink_to("/dev/zero")
    refused(path, "is a device, expected a plain file")
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        read(path)


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path):
    path = tmp_path / "image_features.npy"
    np.save(path, NUMBERS)
    found = open_features(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(UserError, match="cut off while it was read"):
        found.read()


@pytest.mark.parametrize("image", ["image_features.npy", "image_feat.npy"])
@pytest.mark.parametrize("text", ["text_features.npy", "text_feat.npy"])
def test_the_names_of_mmrec_are_read_too(tmp_path, image, text):
    np.save(tmp_path / image, NUMBERS)
    np.save(tmp_path / text, NUMBERS + 1)
    found = find_features(tmp_path)
    np.testing.assert_array_equal(found["image"].read(), NUMBERS)
    np.testing.assert_array_equal(found["text"].read(), NUMBERS + 1)


def test_both_names_of_one_modality_are_refused(tmp_path):
    np.save(tmp_path / "text_feat.npy", NUMBERS)
    np.save(tmp_path / "text_features.npy", NUMBERS)
    with pytest.raises(UserError, match=r"text_features\.npy and text_feat\.npy, expected one"):
        find_features(tmp_path)
    (tmp_path / "text_feat.npy").unlink()
    (tmp_path / "text_feat.npy").symlink_to("text_features.npy")
    assert find_features(tmp_path)["text"].shape == (5, 6)
