"""Writes GeoTIFF strip by strip and reads it back: GDAL hides a full disk."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from uhrjax.data import prepared
from uhrjax.output import legend as legend_lib

BLOCK = 256  # px: side of a stored tile
CACHE_BYTES = 64 * 2**20  # GDAL's own default is 5 % of the memory
LEVEL = 2  # of deflate: 4 x the speed of GDAL's 6 at 1.4 x its (small) size

ReadRows = Callable[[int, int], np.ndarray]  # [top, bottom) -> [h, W] or [h, W, C]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a GeoTIFF holds besides its pixels."""

    scene: prepared.SceneInfo
    bands: tuple[str, ...]  # descriptions
    nodata: float
    dtype: str = "uint8"  # or float16
    scale: float = 1.0  # meaning = value * scale
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    legend: legend_lib.Legend | None = None  # gives a colour table


def write(path: pathlib.Path, read_rows: ReadRows, layout: Layout) -> None:
    """Writes a tiled, deflated GeoTIFF in memory that does not grow with its height.

    It has overviews, which viewers need to open a large file: of class ids the nearest
    pixel, of measures the average.

    float16 is stored as GDAL's Float32 with NBITS=16: half the bytes, and GDAL of any
    version reads it (a Float16 type exists only since 3.11).

    Args:
        path: the file.
        read_rows: gives the pixels, asked for twice.
        layout: what else the file holds.

    Raises:
        OSError: the file does not hold the pixels; the disk is full, most likely.
    """
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path, "w", **_profile(layout)) as file:
                _describe(file, layout)
                for strip, window in _strips(read_rows, layout.scene):
                    file.write(strip.astype(file.dtypes[0], copy=False), window=window)
            if factors := _overview_factors(layout.scene):
                is_id = layout.legend is not None
                rule = rasterio.enums.Resampling["nearest" if is_id else "average"]
                with rasterio.open(path, "r+", num_threads=_threads()) as file:
                    file.build_overviews(factors, rule)
            with rasterio.open(path, num_threads=_threads()) as file:
                for strip, window in _strips(read_rows, layout.scene):
                    stored = file.read(window=window).astype(strip.dtype, copy=False)
                    is_float = strip.dtype.kind == "f"
                    if not np.array_equal(stored, strip, equal_nan=is_float):
                        raise OSError("what was stored is not what was written")
        except OSError as error:
            raise OSError(
                f"the file was not stored completely (disk full? GDAL says: {error})"
            ) from error


def _overview_factors(scene: prepared.SceneInfo) -> list[int]:
    """Returns 2, 4, ... until a whole overview is one tile."""
    count = max(0, math.ceil(math.log2(max(scene.height, scene.width) / BLOCK)))
    return [2 ** (k + 1) for k in range(count)]


def _profile(layout: Layout) -> dict[str, Any]:
    import rasterio

    scene = layout.scene
    is_half = layout.dtype == "float16"
    profile = {
        "driver": "GTiff", "height": scene.height, "width": scene.width,
        "count": len(layout.bands), "dtype": "float32" if is_half else layout.dtype,
        "nodata": layout.nodata, "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "deflate", "zlevel": LEVEL,
        "interleave": "band", "bigtiff": "IF_SAFER", "num_threads": _threads(),
    }  # fmt: skip
    if is_half:
        profile["nbits"] = 16
    if scene.crs:
        profile["crs"] = rasterio.crs.CRS.from_wkt(scene.crs)
    if scene.transform is not None:
        profile["transform"] = rasterio.Affine(*scene.transform[:6])
    return profile


def _describe(file: Any, layout: Layout) -> None:
    for band, text in enumerate(layout.bands, 1):
        file.set_band_description(band, text)
    if layout.scale != 1.0:
        file.scales = (layout.scale,) * len(layout.bands)
    if layout.legend:
        colours = layout.legend.table().tolist()
        table = {i: (*colour, 255) for i, colour in enumerate(colours)}
        table[layout.legend.nodata] = (0, 0, 0, 0)
        file.write_colormap(1, table)
    file.update_tags(**layout.tags)


def _strips(
    read_rows: ReadRows, scene: prepared.SceneInfo
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields [C, h, W] rows of whole blocks, and where they are."""
    import rasterio.windows

    for top in range(0, scene.height, BLOCK):
        rows = read_rows(top, min(top + BLOCK, scene.height))
        bands = rows[None] if rows.ndim == 2 else np.moveaxis(rows, -1, 0)
        window = rasterio.windows.Window(0, top, scene.width, len(rows))
        yield np.ascontiguousarray(bands), window


def _threads() -> int:
    return min(os.cpu_count() or 1, 8)
