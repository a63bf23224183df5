"""Decodes the PNG files that the builders write, at twice the speed of OpenCV.

Their rows are all filtered by "up" (each stored as its difference to the row above), so
that pixels are the running sum of the inflated rows. Any other PNG goes to OpenCV.
"""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

try:  # inflates twice as fast; where it has no wheel, the standard library's does
    from isal import isal_zlib as inflater
except ImportError:
    inflater = zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3}  # colour type -> grey, RGB
UP = 2  # filter of a row
MOST_BYTES = 2**30  # of pixels; a header that claims more is left to OpenCV


def decode(stored: bytes) -> np.ndarray | None:
    """Decodes PNG bytes.

    Returns:
        uint8 [h, w, 3] RGB or [h, w], or None if the bytes are damaged.
    """
    try:
        pixels = _decode_ours(stored)
        return _decode_any(stored) if pixels is None else pixels
    except (struct.error, ValueError, inflater.error, cv2.error):
        return None


def _decode_ours(stored: bytes) -> np.ndarray | None:
    """Returns the pixels, or None if the file is not written as the builders do."""
    if stored[: len(SIGNATURE)] != SIGNATURE:
        return None
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(
        ">IIBBBBB", stored, 16
    )
    if bits != 8 or colour not in CHANNELS or interlaced:
        return None
    wide = width * CHANNELS[colour]
    if not 0 < height * wide <= MOST_BYTES:
        return None
    # Its checksum covers all pixels; those of the chunks are not looked at.
    inflated = inflater.decompress(_join_data(stored), bufsize=height * (wide + 1))
    rows = np.frombuffer(inflated, np.uint8).reshape(height, wide + 1)
    if (rows[:, 0] != UP).any():
        return None
    pixels = np.empty((height, wide), np.uint8)
    pixels[0] = rows[0, 1:]
    for row in range(1, height):  # 5 times as fast as np.add.accumulate
        np.add(rows[row, 1:], pixels[row - 1], out=pixels[row])
    shape = (height, width, 3) if colour == 2 else (height, width)
    return pixels.reshape(shape)


def _join_data(stored: bytes) -> bytes:
    """Returns the compressed stream, which lies in one or more chunks."""
    parts, at = [], len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", stored, at)
        if kind == b"IDAT":
            parts.append(stored[at + 8 : at + 8 + size])
        at += size + 12  # length, name and checksum
    return b"".join(parts)


def _decode_any(stored: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
