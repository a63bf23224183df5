"""Scenes to measure with: GeoTIFF files of any height, and rows that stay in memory."""

from __future__ import annotations

import pathlib
import shutil
import warnings

import cv2
import numpy as np

from uhrjax import errors
from uhrjax.data import prepared
from uhrjax.tiling import window as windows

BLOCK = 512  # px, of the file
OCTAVES = {128: 45.0, 32: 20.0, 8: 10.0, 1: 7.0}  # px -> amplitude, levels of 256
# A place on earth, so that masks are GeoTIFF: 0.5 m pixels.
PLACE = (0.5, 0.0, 450000.0, 0.0, -0.5, 35000.0)
CRS = "EPSG:32636"


def draw(height: int, width: int, *, seed: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: coloured clouds with the grain of a camera."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 110, np.float32)
    for side, amplitude in OCTAVES.items():
        coarse = (-(-height // side) + 1, -(-width // side) + 1, 3)
        noise = rng.standard_normal(coarse, np.float32) * np.float32(amplitude)
        if side > 1:
            noise = cv2.resize(noise, (coarse[1] * side, coarse[0] * side))
        total += noise[:height, :width]
    return np.clip(total, 0, 255).astype(np.uint8)


def write(path: pathlib.Path, *, rows: int, columns: int) -> None:
    """Writes a scene as tiled, deflated GeoTIFF without overviews, strip by strip.

    The strips are one strip, turned and shifted: memory does not grow with the height,
    and a tile repeats nothing that deflate could find.

    Raises:
        errors.InputError: rasterio is not there, or the disk has too little space.
    """
    try:
        import rasterio
    except ImportError as error:
        raise errors.InputError(
            "the benchmark reads a GeoTIFF; run: pip install 'uhrjax[geo]'"
        ) from error
    need, free = rows * columns * 4, shutil.disk_usage(path.parent).free
    if free < need:
        raise errors.InputError(
            f"a scene of {columns} x {rows} px and its mask need {need / 1e9:.1f} GB, "
            f"{path.parent} has {free / 1e9:.1f} GB: set TMPDIR to another disk, or "
            "give smaller --rows and --columns"
        )
    profile = {
        "driver": "GTiff", "height": rows, "width": columns, "count": 3,
        "dtype": "uint8", "photometric": "RGB", "interleave": "pixel", "tiled": True,
        "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1,
        "bigtiff": "IF_SAFER", "num_threads": "ALL_CPUS", "crs": CRS,
        "transform": rasterio.Affine(*PLACE),
    }  # fmt: skip
    strip = draw(BLOCK, columns, seed=0)
    with warnings.catch_warnings(), rasterio.open(path, "w", **profile) as file:
        for i, top in enumerate(range(0, rows, BLOCK)):
            turned = np.roll(strip[:: (-1) ** i], 1009 * i, axis=1)
            height = min(BLOCK, rows - top)
            file.write(
                np.moveaxis(turned[:height], -1, 0),
                window=rasterio.windows.Window(0, top, columns, height),
            )


class MemoryScene:
    """A scene without a file: all its rows are the same few, handed out at no cost."""

    def __init__(self, height: int, width: int):
        self.info = prepared.SceneInfo("memory", height, width)
        self._rows = draw(1, width, seed=1)

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 3] of a window within the scene's columns."""
        if window.height > len(self._rows):
            self._rows = draw(window.height, self.info.width, seed=1)
        columns = slice(window.left, window.left + window.width)
        return self._rows[: window.height, columns]

    def read_valid(self, window: windows.Window) -> None:
        """Says that all pixels are valid."""
        return None


class MemoryMask:
    """A label map without a file, and the scene that it belongs to."""

    def __init__(self, height: int, width: int, *, classes: int):
        self.image = MemoryScene(height, width)
        self.info = self.image.info
        self._labels = draw_labels(height, width, classes=classes, seed=2)

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 1] class ids of a window, 255 beyond the border."""
        return windows.cut(self._labels[..., None], window, fill=prepared.IGNORE_LABEL)

    def read_valid(self, window: windows.Window) -> None:
        """Says that every pixel has a class."""
        return None


def draw_labels(height: int, width: int, *, classes: int, seed: int) -> np.ndarray:
    """Returns uint8 [height, width] class ids: 16 px cells with ragged borders."""
    rng = np.random.default_rng(seed)
    cell, ragged = 16, 3
    shape = (height // cell + 2, width // cell + 2)
    coarse = rng.integers(0, classes, shape, np.uint8)
    fine = coarse.repeat(cell, 0)[: height + cell].repeat(cell, 1)[:, : width + cell]
    y, x = rng.integers(0, ragged, (2, height, width))
    return fine[y + np.arange(height)[:, None], x + np.arange(width)]
