"""Writes PNG label maps row by row; no library here streams them (Pillow, OpenCV and
GDAL all want the whole map in memory)."""

from __future__ import annotations

import pathlib
import struct
import zlib
from typing import BinaryIO

import numpy as np

from uhrjax.output import geotiff
from uhrjax.output import legend as legend_lib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3  # colour types
UP = 2  # filter: difference to the pixel above, mostly 0 in a label map
STRIP_BYTES = 1 << 22


def write(
    path: pathlib.Path,
    read_rows: geotiff.ReadRows,
    *,
    height: int,
    width: int,
    legend: legend_lib.Legend,
    palette: bool,
) -> None:
    """Writes an 8-bit PNG whose pixel values are class ids.

    Args:
        path: the file.
        read_rows: gives [h, W] uint8.
        height: px.
        width: px.
        legend: its names go into text chunks.
        palette: adds the colours. Pillow and GDAL still read ids from such a file, but
            OpenCV, imageio and torchvision read colours.
    """
    with path.open("wb") as file:
        file.write(SIGNATURE)
        kind = PALETTE if palette else GREY
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
        if palette:
            _chunk(file, b"PLTE", legend.table().tobytes())
            opaque = bytes(0 if i == legend.nodata else 255 for i in range(256))
            _chunk(file, b"tRNS", opaque)
        for key, text in legend.tags().items():
            latin = key.encode("latin-1") + b"\0\0\0\0\0"  # plain, no language
            _chunk(file, b"iTXt", latin + text.encode("utf-8"))
        # Runs are all there is to find: as small as level 6, at 5 times its speed.
        coder = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        above = np.zeros((1, width), np.uint8)
        step = max(1, STRIP_BYTES // width)
        for top in range(0, height, step):
            rows = read_rows(top, min(top + step, height))
            filtered = np.full((len(rows), width + 1), UP, np.uint8)
            np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
            np.subtract(rows[:1], above, out=filtered[:1, 1:])
            above = rows[-1:]
            _chunk(file, b"IDAT", coder.compress(filtered))
        _chunk(file, b"IDAT", coder.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    if not content and kind == b"IDAT":
        return
    check = zlib.crc32(content, zlib.crc32(kind))
    file.write(struct.pack(">I", len(content)) + kind)
    file.write(content)
    file.write(struct.pack(">I", check))
