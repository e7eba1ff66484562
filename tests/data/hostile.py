"""Pictures made to break things; what each of them should count as."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

GOOD = ("cmyk.jpg", "deep.png", "moving.gif", "palette.png", "alpha.png", "deep.tif", "link.jpg")
REASONS = {
    "padded.webp": "bytes, at most",
    "scans.jpg": "scans, at most",
    "bomb.png": "pixels",
    "thin.png": "too thin",
    "cut.jpg": "cannot be decoded",
    "text.jpg": "cannot be decoded",
    "script.jpg": "cannot be decoded",
    "empty.png": "cannot be decoded",
    "chunk.png": "cannot be decoded",
    "out.jpg": "leads out of the folder",
    "loop.jpg": "cannot be read",
    "dangling.jpg": "no such file",
    "pipe.jpg": "not a plain file",
    "folder.jpg": "not a plain file",
}


def _png(width, height, chunks=b""):
    """A grey PNG of zeros that claims any size; nearly no bytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def fill(folder, outside):
    """Write every one of them into `folder`; `outside` gets one that must stay unread."""
    folder.mkdir(exist_ok=True)
    outside.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
    picture.save(outside / "secret.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    deep = np.linspace(0, 65535, 1600).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    picture.convert("P").save(folder / "palette.png", transparency=bytes(range(256)))
    picture.convert("RGBA").save(folder / "alpha.png")
    (folder / "link.jpg").symlink_to("cmyk.jpg")

    (folder / "bomb.png").write_bytes(_png(20000, 20000))
    (folder / "thin.png").write_bytes(_png(40000, 1))
    whole = io.BytesIO()
    picture.save(whole, "JPEG")
    slow = io.BytesIO()
    picture.save(slow, "JPEG", progressive=True)
    data = slow.getvalue()
    last = data.rindex(b"\xff\xda")
    (folder / "scans.jpg").write_bytes(data[:last] + 400 * data[last:-2] + data[-2:])
    with open(folder / "padded.webp", "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(3_000_000_000)  # sparse: hardly anything on disk
    (folder / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "script.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    (folder / "empty.png").write_bytes(b"")
    huge = zlib.compress(bytes(200_000_000))
    text = b"zTXt" + b"key\x00\x00" + huge
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (folder / "chunk.png").write_bytes(_png(30, 30, chunk))
    (folder / "out.jpg").symlink_to(outside / "secret.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    return folder
