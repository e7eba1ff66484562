"""The bytes of a compressed upload, as a device would send them, and back.

    for each row that is sent: its item, 4 bytes; its numbers
    for each block of the numbers beside rows: its numbers
    weight and loss, 4 bytes each

Numbers are 32-bit floats, or with b bits a scale of 4 bytes and the steps, b bits each, filled up
to whole bytes (compression.py). Everything is little-endian. The last block is as long as what is
left. `analysis/communication.py` counts what this writes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from fedvlr_jax.client.compression import BLOCK, Codes


class Message(NamedTuple):
    """A compressed upload before it is bytes.

    `items` are those of the rows that are sent, `rows` their numbers and `dense` those of all
    blocks, laid flat, the last block's with what fills it up: as they are, or as codes. `numbers`
    counts those beside rows.
    """

    items: Int[np.ndarray, " rows"]
    rows: Float32[np.ndarray, "rows width"] | Codes
    dense: Float32[np.ndarray, " numbers"] | Codes
    numbers: int
    weight: float
    loss: float


def encode(message: Message, bits: int) -> bytes:
    """The bytes of a message; `bits` of a number, 0 where they are as they are."""
    parts = []
    for place, item in enumerate(message.items):
        parts.append(np.int32(item).astype("<i4").tobytes())
        parts.append(_numbers(message.rows, place, None, bits))
    if bits:
        for place in range(-(-message.numbers // BLOCK)):
            size = min(BLOCK, message.numbers - place * BLOCK)
            parts.append(_numbers(message.dense, place, size, bits))
    else:
        parts.append(np.asarray(message.dense, "<f4").tobytes())
    parts.append(np.array([message.weight, message.loss], "<f4").tobytes())
    return b"".join(parts)


def decode(content: bytes, bits: int, width: int, numbers: int) -> Message:
    """The message that some bytes are.

    Args:
        content: what `encode` wrote.
        bits: of a number.
        width: numbers of a row.
        numbers: beside rows.
    """
    row = 4 + (4 + -(-width * bits // 8) if bits else 4 * width)
    sizes = [min(BLOCK, numbers - start) for start in range(0, numbers, BLOCK)]
    dense_bytes = sum(4 + -(-size * bits // 8) for size in sizes) if bits else 4 * numbers
    n_rows = (len(content) - dense_bytes - 8) // row
    items, found = np.zeros(n_rows, np.int32), []
    for place in range(n_rows):
        part = content[place * row : (place + 1) * row]
        items[place] = np.frombuffer(part[:4], "<i4")[0]
        found.append(_read(part[4:], width, bits))
    rest, blocks = content[n_rows * row :], []
    for size in sizes if bits else ():
        length = 4 + -(-size * bits // 8)
        blocks.append(_read(rest[:length], size, bits, BLOCK))
        rest = rest[length:]
    if bits:
        rows, dense = _joined(found, width), _joined(blocks, BLOCK)
    else:
        rows = np.array(found, np.float32).reshape(n_rows, width)
        dense, rest = np.frombuffer(rest[: 4 * numbers], "<f4"), rest[4 * numbers :]
    weight, loss = np.frombuffer(rest, "<f4")
    return Message(items, rows, dense, numbers, float(weight), float(loss))


def _numbers(
    of: Float32[np.ndarray, "rows width"] | Codes, place: int, size: int | None, bits: int
) -> bytes:
    if not bits:
        return np.asarray(of[place], "<f4").tobytes()
    steps = np.asarray(of.steps[place][:size], np.uint8)
    digits = (steps[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    scale = np.asarray(of.scales[place]).astype("<f4").tobytes()
    return scale + np.packbits(digits.astype(np.uint8), bitorder="little").tobytes()


def _read(
    part: bytes, size: int, bits: int, width: int | None = None
) -> tuple[Int[np.ndarray, " width"], np.float32] | Float32[np.ndarray, " width"]:
    if not bits:
        return np.frombuffer(part, "<f4")
    scale = np.frombuffer(part[:4], "<f4")[0]
    digits = np.unpackbits(np.frombuffer(part[4:], np.uint8), bitorder="little")
    digits = digits[: size * bits].reshape(size, bits).astype(np.int32)
    steps = (digits << np.arange(bits)).sum(axis=1).astype(np.int32)
    return np.pad(steps, (0, (width or size) - size)), scale


def _joined(found: list, width: int) -> Codes:
    steps = np.array([steps for steps, _ in found], np.int32).reshape(len(found), width)
    return Codes(steps, np.array([scale for _, scale in found], np.float32))
