"""The fast decoder equals OpenCV's, and notices what OpenCV lets pass."""

import importlib
import sys
import zlib

import corrupt
import cv2
import numpy as np
import pytest

from data_builders import encode
from uhrjax.data import png

SHAPES = ((1, 1), (1, 9, 3), (2, 1), (16, 5, 3), (17, 33), (31, 7, 3), (300, 211, 3))


@pytest.fixture(params=["fast", "zlib"])
def inflater(request, monkeypatch):
    """Both libraries that inflate; the fast one may be missing."""
    if request.param == "zlib":
        monkeypatch.setattr(png, "inflater", zlib)


def draw(shape, *, values=256):
    return np.random.default_rng(0).integers(0, values, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [1, 3, 256])
def test_what_the_builders_write_comes_back(shape, values, inflater):
    pixels = draw(shape, values=values)
    found = png.decode(encode.encode_png(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.writeable and found.flags.c_contiguous


def test_files_of_the_builders_take_the_fast_way(monkeypatch):
    monkeypatch.setattr(png.cv2, "imdecode", None)
    pixels = draw((60, 50, 3))
    np.testing.assert_array_equal(png.decode(encode.encode_png(pixels)), pixels)


@pytest.mark.parametrize("strategy", [cv2.IMWRITE_PNG_FILTER_NONE, 128, None])
def test_other_files_are_decoded_too(strategy):
    pixels = draw((40, 30, 3), values=40)
    flags = () if strategy is None else (cv2.IMWRITE_PNG_FILTER, strategy)
    _, coded = cv2.imencode(".png", pixels[..., ::-1], flags)
    np.testing.assert_array_equal(png.decode(coded.tobytes()), pixels)


def test_damaged_bytes_are_noticed(inflater):
    pixels = draw((60, 70, 3), values=30)
    good = encode.encode_png(pixels)
    damaged = list(corrupt.corruptions(good, seed=1, each=40))
    found = {name: png.decode(stored) for name, stored in damaged}
    for name, decoded in found.items():
        # Bytes that do not matter may differ, but no wrong pixel is handed out.
        assert decoded is None or np.array_equal(decoded, pixels), name
    assert sum(decoded is None for decoded in found.values()) > 0.9 * len(found)
    assert png.decode(b"") is None


def test_the_fast_library_is_no_must(monkeypatch):
    monkeypatch.setitem(sys.modules, "isal", None)
    try:
        assert importlib.reload(png).inflater is zlib
    finally:
        monkeypatch.undo()
        importlib.reload(png)
