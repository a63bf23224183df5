"""The fast decoder equals OpenCV's, and notices what OpenCV lets pass."""

import corrupt
import cv2
import numpy as np
import pytest

from data_builders import encode, prepare
from uhrjax.data import png, prepared

SHAPES = ((1, 1), (1, 9, 3), (2, 1), (16, 5, 3), (17, 33), (31, 7, 3), (300, 211, 3))


def draw(shape, *, values=256):
    return np.random.default_rng(0).integers(0, values, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [1, 3, 256])
def test_what_the_builders_write_comes_back(shape, values):
    pixels = draw(shape, values=values)
    found = png.decode(encode.encode_png(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.writeable and found.flags.c_contiguous


def test_files_of_the_builders_take_the_fast_way(monkeypatch):
    monkeypatch.setattr(png.cv2, "imdecode", None)
    pixels = draw((60, 50, 3))
    np.testing.assert_array_equal(png.decode(encode.encode_png(pixels)), pixels)


@pytest.mark.parametrize("level", [1, 9])
def test_compressed_files_take_the_fast_way_too(level, monkeypatch):
    monkeypatch.setattr(png.cv2, "imdecode", None)
    pixels = draw((300, 50, 3), values=9)
    flags = (cv2.IMWRITE_PNG_COMPRESSION, level, *encode.PNG[2:])
    _, coded = cv2.imencode(".png", pixels[..., ::-1], flags)
    np.testing.assert_array_equal(png.decode(coded.tobytes()), pixels)


@pytest.mark.parametrize("rows", ["NONE", "SUB", "PAETH", None])
def test_other_files_are_decoded_too(rows):
    pixels = draw((40, 30, 3), values=40)
    flags = ()
    if rows:
        flags = (cv2.IMWRITE_PNG_FILTER, getattr(cv2, f"IMWRITE_PNG_FILTER_{rows}"))
    _, coded = cv2.imencode(".png", pixels[..., ::-1], flags)
    np.testing.assert_array_equal(png.decode(coded.tobytes()), pixels)


def test_damaged_bytes_are_noticed():
    pixels = draw((60, 70, 3), values=30)
    good = encode.encode_png(pixels)
    damaged = list(corrupt.corruptions(good, seed=1, each=40))
    found = {name: png.decode(stored) for name, stored in damaged}
    for name, decoded in found.items():
        # Bytes that do not matter may differ, but no wrong pixel is handed out.
        assert decoded is None or np.array_equal(decoded, pixels), name
    assert sum(decoded is None for decoded in found.values()) > 0.9 * len(found)
    assert png.decode(b"") is None


def test_rows_that_png_leaves_uncompressed_are_small_on_disk(tmp_path):
    ramp = (np.arange(900) // 9).astype(np.uint8)[:, None, None]
    image = np.broadcast_to(ramp, (900, 900, 3))
    for kind, pixels in (("images", image), ("masks", image[..., 0] % 2)):
        (tmp_path / "raw" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "raw" / kind / "a.png"), pixels)
    info = prepare.prepare(
        "folder", data_dir=tmp_path, dir=tmp_path / "raw", train=["a"],
        configs=("scenes",),
    )  # fmt: skip
    folder = prepared.locate(tmp_path, info.name, "scenes")
    stored = sum(path.stat().st_size for path in folder.glob("*array_record*"))
    assert len(encode.encode_png(image)) > image.size
    assert stored < 0.1 * image.size
